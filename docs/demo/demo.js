// The page: takes an image, asks the worker for its instances, draws them and offers them.

import { geojson, measure, png, table } from "./outputs.js";

const MOST_PIXELS = 2048 * 2048; // What the memory of a page holds.
const element = (id) => document.getElementById(id);
const [view, status, count, hover] = ["view", "status", "count", "hover"].map(element);
const [auto, slider, pixels, downloads] = ["auto", "diameter", "pixels", "downloads"].map(element);
const context = view.getContext("2d", { willReadFrequently: true });

let image = null; // ImageData of the image that is shown.
let name = "image";
let result = null;
let rows = [];
let chosen = 0;
let asked = 0; // Answers to earlier questions are ignored.
let waiting = false;

if ("serviceWorker" in navigator && !window.crossOriginIsolated) {
  // Once it is there, the page comes with the headers that allow threads.
  const isolated = sessionStorage.getItem("isolated");
  navigator.serviceWorker.register("isolate.js").then(async () => {
    await navigator.serviceWorker.ready;
    if (isolated || image) return;
    sessionStorage.setItem("isolated", "asked");
    window.location.reload();
  }, () => {});
}

const worker = new Worker("worker.js", { type: "module" });
worker.onmessage = ({ data }) => {
  if (data.failed && (data.number === undefined || data.number === asked)) say(data.failed, true);
  else if (data.ready) {
    document.body.dataset.ready = "yes";
    if (!image) say("Ready.");
  } else if (data.number === asked) show(data);
};
worker.onerror = () => say("The runtime cannot be loaded: was build.py run?", true);

element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) open(target.files[0], target.files[0].name);
  target.value = "";
});
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const sample = button.dataset.sample;
    const response = await fetch(`built/${sample}.png`).catch(() => null);
    if (response?.ok) open(await response.blob(), `${sample}.png`);
    else say(`The sample ${sample} cannot be loaded: was build.py run?`, true);
  });
}
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragover");
    const [file] = event.dataTransfer?.files ?? [];
    if (kind === "drop" && file) open(file, file.name);
  });
}
element("drop").addEventListener("keydown", ({ key }) => {
  if (key === "Enter" || key === " ") element("file").click();
});
auto.addEventListener("change", () => {
  slider.disabled = auto.checked;
  if (image) ask();
});
slider.addEventListener("input", () => {
  pixels.textContent = `${(2 ** slider.value).toFixed(1)} px`;
});
slider.addEventListener("change", () => image && ask());

/** Show an image, and ask for its instances. */
async function open(blob, file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    say(`${file} is no image that a browser reads: PNG, JPEG, WebP, GIF, BMP or AVIF.`, true);
    return;
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    say(
      `${file} has ${width} × ${height} pixels, and this page takes 2048 × 2048: cut it, make it ` +
        "smaller, or use keras-rpe segment.",
      true,
    );
    bitmap.close();
    return;
  }
  [view.width, view.height] = [width, height];
  view.style.maxWidth = `calc(85vh * ${width / height})`;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  image = context.getImageData(0, 0, width, height);
  name = file.replace(/\.[^.]*$/, "");
  ask();
}

function ask() {
  asked++;
  waiting = true;
  result = null;
  downloads.hidden = true;
  count.textContent = "";
  say("Looking …");
  const diameter = auto.checked ? 0 : 2 ** slider.value;
  const { width, height, data } = image;
  worker.postMessage({ number: asked, rgba: data, width, height, diameter });
}

function show(found) {
  waiting = false;
  result = found;
  rows = measure(found);
  chosen = 0;
  pixels.textContent = `${found.diameter.toFixed(1)} px`;
  if (auto.checked) slider.value = Math.log2(found.diameter);
  count.textContent = `${found.count} ${found.count === 1 ? "instance" : "instances"}`;
  downloads.hidden = false;
  say(`${found.width} × ${found.height} pixels in ${found.seconds.toFixed(2)} s.`);
  draw(0);
}

/** Draw the image with its instances; one of them stands out. */
function draw(chosen) {
  const { labels, width, height } = result;
  const drawn = new ImageData(new Uint8ClampedArray(image.data), width, height);
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at];
    if (!label) continue;
    const x = at % width;
    const edge =
      (x > 0 && labels[at - 1] !== label) ||
      (x + 1 < width && labels[at + 1] !== label) ||
      (labels[at - width] ?? label) !== label ||
      (labels[at + width] ?? label) !== label;
    const share = edge ? 1 : label === chosen ? 0.6 : 0.3;
    const color = shade(label);
    for (let k = 0; k < 3; k++) {
      drawn.data[4 * at + k] += share * (color[k] - drawn.data[4 * at + k]);
    }
    drawn.data[4 * at + 3] = 255;
  }
  context.putImageData(drawn, 0, 0);
}

/** Colors whose hues are far apart for neighboring numbers. */
function shade(label) {
  const hue = (label * 0.618034) % 1;
  return [0, 2 / 3, 1 / 3].map((turn) => 255 * (0.55 + 0.45 * Math.cos(2 * Math.PI * (hue + turn))));
}

view.addEventListener("pointermove", (event) => {
  if (!result) return;
  const box = view.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * result.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * result.height);
  point(result.labels[y * result.width + x] ?? 0);
});
view.addEventListener("pointerleave", () => result && point(0));

function point(label) {
  if (label === chosen) return;
  chosen = label;
  draw(label);
  const score = label <= result.scores.length ? `, score ${result.scores[label - 1]?.toFixed(2)}` : "";
  hover.textContent = label
    ? `Instance ${label}: ${rows[label].area} pixels${score}`
    : "Point at an instance for its area and score.";
}

const OFFERS = {
  labels: async () => ["labels.png", await png(result)],
  table: () => ["instances.csv", new Blob([table(result)], { type: "text/csv" })],
  outlines: () => ["outlines.geojson", new Blob([geojson(result)], { type: "application/geo+json" })],
};
for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", async () => {
    const [ending, blob] = await OFFERS[button.dataset.download]();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}_${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

function say(text, wrong = false) {
  status.textContent = text;
  status.classList.toggle("error", wrong);
}

// For tests.
window.demo = { open, state: () => ({ waiting, result, wrong: status.classList.contains("error") }) };
