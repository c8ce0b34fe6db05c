// Draws every chart of a page from the table beside it, with plotly.js. A series has a symbol, a dash and a pattern of
// its own, so that its colour is never needed to know it.

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const PATTERNS = ["", "/", "x", ".", "\\", "-", "+", "|"];
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false, showTips: false };
const PANEL_PX = 84;
const ROW_PX = 30;
const TEXT = { showarrow: false, yanchor: "bottom" };

export function drawAll(part) {
  if (!window.Plotly) return;
  for (const figure of part.querySelectorAll("figure.chart")) {
    const plot = figure.querySelector(".plot");
    if (plot) draw(figure, plot);
  }
}

export function redrawOnScheme() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));
}

function draw(figure, plot) {
  const data = read(figure);
  const { traces, layout } = { lines, panels, bars, shares: bars, dots, reliability }[data.kind](data);
  window.Plotly.react(plot, traces, layout, CONFIG);
}

// The table's numbers: [{name, key, points: [{value, low, high, at}]}] and what stands for each row.
function read(figure) {
  const table = figure.querySelector("table");
  const heads = [...table.tHead.rows[0].cells].filter((cell) => cell.dataset.series !== undefined);
  const rows = [...table.tBodies[0].rows];
  const series = heads.map((head, index) => ({
    name: plain(head.dataset.series),
    key: head.dataset.class,
    points: rows.map((row) => {
      const { value, low, high, at } = row.cells[index + 1].dataset;
      return { value: number(value), low: number(low), high: number(high), at: number(at) };
    }),
  }));
  series.forEach((one, index) => Object.assign(one, { colour: colourOf(one.key, index), index }));
  return {
    ...figure.dataset,
    counts: figure.dataset.counts !== undefined,
    xs: rows.map((row) => plain(row.cells[0].textContent.trim())),
    marks: rows.map((row) => row.dataset.mark ?? "promoted"),
    series,
  };
}

const number = (text) => (text === undefined ? null : Number(text));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colourOf = (key, index) => (key && key !== "other" ? css(`--${key}`) : COLOURS[index % COLOURS.length]);
// Plotly takes some HTML in its texts; names of people and files are not meant as such.
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function base(data, more = {}) {
  const line = css("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: css("--muted"), fixedrange: true, automargin: true };
  return {
    font: { family: "system-ui, sans-serif", size: 13, color: css("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 12, r: 12, t: 28, b: 12 },
    dragmode: false,
    hovermode: "closest",
    hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--muted"), font: { color: css("--ink") } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    showlegend: data.series.length > 1,
    height: 330,
    xaxis: { ...axis, type: "category", title: { text: data.x }, showgrid: false, nticks: 12 },
    yaxis: { ...axis, title: { text: data.y }, rangemode: "tozero" },
    ...more,
  };
}

const errors = (points, colour) => ({
  type: "data",
  symmetric: false,
  array: points.map((point) => (point.high === null ? 0 : point.high - point.value)),
  arrayminus: points.map((point) => (point.low === null ? 0 : point.value - point.low)),
  color: colour,
  thickness: 1.2,
  width: 3,
});

// Promoted versions are joined by the line and filled; refused ones stand beside it, hollow.
function curve(data, one, axes = {}, colour = one.colour) {
  const symbol = SYMBOLS[one.index % SYMBOLS.length];
  const values = one.points.map((point) => point.value);
  const promoted = values.map((value, index) => (data.marks[index] === "promoted" ? value : null));
  return [
    {
      type: "scatter", mode: "lines", x: data.xs, y: promoted, connectgaps: true, hoverinfo: "skip",
      showlegend: false, line: { color: colour, width: 2, dash: DASHES[one.index % DASHES.length] }, ...axes,
    },
    {
      type: "scatter", mode: "markers", name: one.name, x: data.xs, y: values, error_y: errors(one.points, colour),
      marker: {
        color: colour,
        size: 9,
        symbol: data.marks.map((mark) => (mark === "promoted" ? symbol : `${symbol}-open`)),
        line: { width: 1.5, color: colour },
      },
      ...axes,
    },
  ];
}

const promotions = (data, y = 0) =>
  data.marks.some((mark) => mark !== "promoted")
    ? data.xs.flatMap((_x, index) =>
        data.marks[index] === "promoted"
          ? [{ ...TEXT, x: index, y, yref: "paper", text: "▲", font: { size: 11, color: css("--muted") } }]
          : [])
    : [];

function lines(data) {
  const layout = base(data, { annotations: promotions(data) });
  const lowest = Math.min(0, ...data.series.flatMap((one) => one.points.map((point) => point.low ?? point.value ?? 0)));
  layout.yaxis.range = [lowest, 1.02];
  return { traces: data.series.flatMap((one) => curve(data, one)), layout };
}

// One small plot per series, one below the other on the same x: the place says which, not the colour.
function panels(data) {
  const count = data.series.length;
  const gap = 0.28 / count;
  const layout = base(data, { showlegend: false, height: Math.max(300, count * PANEL_PX + 70) });
  layout.annotations = promotions(data, gap / 2);
  const traces = data.series.flatMap((one, index) => {
    const id = index ? String(index + 1) : "";
    const top = 1 - index / count;
    layout[`yaxis${id}`] = {
      ...layout.yaxis, title: { text: "" }, domain: [top - 1 / count + gap / 2, top - gap], nticks: 4,
      ...(data.counts ? {} : { range: [0, 1.02] }),
    };
    layout.annotations.push({
      ...TEXT, x: 0, xref: "paper", xanchor: "left", y: top - gap, yref: "paper", text: one.name, font: { size: 13 },
    });
    const axes = { yaxis: `y${id}` };
    return data.counts
      ? [{ ...column(data, one), marker: edged(one), ...axes }]
      : curve(data, { ...one, index: 0 }, axes);
  });
  layout.xaxis.anchor = count > 1 ? `y${count}` : "y";
  return { traces, layout };
}

const column = (data, one) => ({
  type: "bar",
  name: one.name,
  x: data.xs,
  y: one.points.map((point) => point.value),
});
const edged = (one) => ({ color: one.colour, line: { color: css("--ink"), width: 0.6 } });
const patterned = (one) => ({
  ...edged(one),
  pattern: {
    shape: PATTERNS[one.index % PATTERNS.length],
    fillmode: "overlay",
    fgcolor: "#000000",
    size: 7,
    solidity: 0.25,
  },
});

function bars(data) {
  const layout = base(data, { barmode: "stack", bargap: 0.25 });
  if (data.kind === "shares") Object.assign(layout.yaxis, { range: [0, 1], tickformat: ".0%" });
  const traces = data.series.map((one) => ({ ...column(data, one), marker: patterned(one) }));
  return { traces, layout };
}

function dots(data) {
  const layout = base(data, { height: data.xs.length * ROW_PX + 90 });
  const { xaxis, yaxis } = layout;
  layout.xaxis = { ...yaxis, title: { text: data.y } };
  layout.yaxis = { ...xaxis, title: { text: "" }, autorange: "reversed", nticks: 0, dtick: 1, showgrid: true };
  const traces = data.series.map((one) => ({
    type: "scatter", mode: "markers", name: one.name, y: data.xs, x: one.points.map((point) => point.value),
    error_x: errors(one.points, one.colour),
    marker: { color: one.colour, size: 10, symbol: SYMBOLS[one.index % SYMBOLS.length] },
  }));
  return { traces, layout };
}

function reliability(data) {
  const layout = base(data, { height: 380 });
  Object.assign(layout.xaxis, { type: "linear", range: [0, 1.02], showgrid: true, nticks: 6 });
  Object.assign(layout.yaxis, { range: [0, 1.02], nticks: 6 });
  const traces = data.series.map((one) => ({
    type: "scatter", mode: "lines+markers", name: one.name,
    x: one.points.map((point) => point.at), y: one.points.map((point) => point.value),
    error_y: errors(one.points, one.colour),
    line: { color: one.colour, dash: DASHES[one.index % DASHES.length] },
    marker: { color: one.colour, size: 8, symbol: SYMBOLS[one.index % SYMBOLS.length] },
    connectgaps: true,
  }));
  const ideal = { type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], name: "as it should be", hoverinfo: "skip" };
  return { traces: [{ ...ideal, line: { color: css("--muted"), width: 1, dash: "dot" } }, ...traces], layout };
}
