// Asks what goes on: every 2 s while a training is open, every 15 s otherwise, never while nobody looks. Progress is
// written into the page; when anything else has changed, the page is read again and its live sections are replaced.

const OPEN_MS = 2000;
const IDLE_MS = 15000;
const REFRESH_MS = 8000; // at most this often: experts answer every few seconds

const asServed = new Map(); // id of a live section -> its HTML as the server sent it
let etag = "";
let pause = IDLE_MS;
let timer = 0;
let state = document.body.dataset.state;
let refreshed = 0;
let redraw = () => {};
const quarters = new Map(); // run -> last quarter that was announced

export function keepUpToDate(draw) {
  if (state === undefined) return; // nobody is signed in
  redraw = draw;
  for (const section of document.querySelectorAll("[data-live]")) asServed.set(section.id, section.innerHTML);
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
  if (!document.hidden) poll();
}

async function poll() {
  clearTimeout(timer);
  try {
    const reply = await fetch("/api/v1/live", { cache: "no-store", headers: etag ? { "If-None-Match": etag } : {} });
    if (reply.status === 401) return say("Your session has ended. Reload the page to sign in again.", true);
    if (reply.status === 200) {
      etag = reply.headers.get("ETag") ?? "";
      await show(await reply.json());
    } else if (reply.status !== 304) throw new Error(String(reply.status));
  } catch {
    pause = IDLE_MS;
    document.getElementById("doing").textContent = "The backend does not answer";
  }
  if (!document.hidden) timer = setTimeout(poll, pause);
}

async function show(live) {
  pause = live.runs.length ? OPEN_MS : IDLE_MS;
  document.getElementById("doing").textContent = live.doing;
  for (const run of live.runs) {
    announceQuarter(run);
    const element = document.getElementById(`run-${run.id}`);
    if (!element) continue;
    const bar = element.querySelector("progress");
    bar.max = run.steps || 1;
    bar.value = run.step;
    element.querySelector("[data-part=state]").textContent = run.status;
    element.querySelector("[data-part=progress]").textContent = run.progress;
  }
  if (live.state !== state) {
    if (Date.now() - refreshed < REFRESH_MS) {
      etag = ""; // too soon: look again, and read the page then
      return;
    }
    state = live.state;
    refreshed = Date.now();
    await refresh();
  }
}

function announceQuarter(run) {
  const quarter = run.steps ? Math.floor((4 * run.step) / run.steps) : 0;
  const before = quarters.get(run.id);
  quarters.set(run.id, quarter);
  if (before !== undefined && before !== quarter) say(`Training of ${run.role}: ${quarter * 25} %`);
}

async function refresh() {
  const reply = await fetch(location.href, { cache: "no-store" });
  if (!reply.ok || reply.redirected) return;
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
  const changed = [];
  for (const [id, html] of asServed) {
    const section = document.getElementById(id);
    const now = fresh.getElementById(id)?.innerHTML;
    if (!section || now === undefined || now === html) continue;
    asServed.set(id, now);
    replace(section, now);
    changed.push(section.querySelector("h2, h3")?.textContent ?? id);
  }
  if (changed.length) say(`Updated: ${changed.join(", ")}`);
}

// Whoever reads in a section, by keyboard or with its details open, goes on reading there.
function replace(section, html) {
  const focused = section.contains(document.activeElement) ? place(section, document.activeElement) : -1;
  const open = [...section.querySelectorAll("details")].map((details) => details.open);
  section.innerHTML = html;
  section.querySelectorAll("details").forEach((details, index) => (details.open = open[index] ?? false));
  redraw(section);
  if (focused >= 0) focusable(section)[focused]?.focus();
}

const focusable = (section) => [...section.querySelectorAll("a[href], button, summary, [tabindex='0']")];
const place = (section, element) => focusable(section).indexOf(element);

function say(text, visible = false) {
  document.getElementById("news").textContent = text;
  if (visible) document.getElementById("doing").textContent = text;
}
