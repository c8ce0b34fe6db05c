// The one script a page starts: charts are drawn, the field can be enlarged, and what changes is kept up to date.
import { drawAll, redrawOnScheme } from "./charts.js";
import { keepUpToDate } from "./live.js";

const zoom = document.getElementById("zoom");
zoom?.addEventListener("input", () => {
  document.getElementById("field").style.width = `${zoom.value}%`;
});
keepUpToDate(drawAll);
drawAll(document);
redrawOnScheme();
