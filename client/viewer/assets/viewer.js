// The page's behaviour: which case, which volumes, which keys. NiiVue draws.
"use strict";

const about = JSON.parse(document.getElementById("about").textContent);
const at = (id) => document.getElementById(id);
const AXIS_OF_PLANE = { 0: 2, 1: 1, 2: 0, 3: 2 }; // what "up and down a slice" moves along: x, y, z
const IS_CT = about.channels.some((name) => name.toLowerCase() === "ct");

const viewer = new niivue.Niivue({
  isRadiologicalConvention: true,
  multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
  multiplanarPadPixels: 6,
  dragAndDropEnabled: false, // files of this machine are opened by the command only
  viewModeHotKey: "",
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
  crosshairColor: [0.55, 0.62, 0.7, 1],
  crosshairWidth: 0.5,
  crosshairWidthUnit: "percent",
  crosshairGap: 4,
  fontColor: [0.85, 0.88, 0.92, 1],
  fontMinPx: 14,
  isOrientationTextVisible: true,
  showLegend: false,
  loadingText: "",
  logLevel: "error",
});

let shown = null; // number of the case on the screen
let facts = null; // what the server knows of it
let image = null; // its volumes: one channel, and twice the labels, as areas and as lines
let areas = null;
let lines = null;
let overlaysOn = true;
let place = 0; // of the case in the list
let waiting = Promise.resolve(); // one change of volumes at a time

const inTurn = (change) => (waiting = waiting.then(change).catch((error) => tell(error.message, true)));

function tell(text, isBad = false) {
  at("status").textContent = text;
  at("status").className = isBad ? "bad" : "";
}

async function asked(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

function rows() {
  return [...at("list").children];
}

async function order() {
  const query = new URLSearchParams({ metric: at("metric").value, region: at("region").value });
  at("list").innerHTML = await (await asked(`list?${query}`)).text(); // made by our own server, escaped there
  mark();
}

function mark() {
  rows().forEach((row, index) => {
    const isShown = Number(row.dataset.case) === shown;
    row.toggleAttribute("aria-current", isShown);
    if (isShown) {
      place = index;
      const list = at("list"); // scrollIntoView would move the page as well
      list.scrollTop = Math.min(list.scrollTop, row.offsetTop - list.offsetTop);
      list.scrollTop = Math.max(list.scrollTop, row.offsetTop - list.offsetTop + row.offsetHeight - list.clientHeight);
    }
  });
}

function go(steps) {
  const row = rows()[Math.min(Math.max(place + steps, 0), rows().length - 1)];
  if (row) open(Number(row.dataset.case));
}

function open(number) {
  shown = number;
  mark();
  inTurn(async () => {
    if (number !== shown) return; // another case was asked for meanwhile
    clear();
    const answers = [asked(`case/${number}`), read(`case/${number}/marks.nii`), imageOf(number)];
    const [words, labels, channel] = await Promise.all(answers);
    facts = await words.json();
    [image, areas, lines] = [channel, await volume(labels), await volume(labels)];
    at("case").innerHTML = facts.html; // as above
    at("disagreement").disabled = !facts.is_compared;
    setPlane();
    draw();
    moveTo(facts.focus_mm);
  });
}

// Nothing of a case may stay on the screen below the name of another.
function clear() {
  tell("loading");
  facts = image = areas = lines = null;
  at("case").textContent = at("position").textContent = "";
  viewer.volumes = [];
  viewer.drawScene();
}

async function read(address) {
  return (await asked(address)).arrayBuffer();
}

function volume(content) {
  return niivue.NVImage.loadFromUrl({ url: content, name: "volume.nii" });
}

async function imageOf(number) {
  return volume(await read(`case/${number}/image/${at("channel").value}.nii`));
}

async function changeChannel() {
  if (!lines) return;
  const mm = viewer.frac2mm(viewer.scene.crosshairPos);
  image = await imageOf(facts.number);
  draw();
  moveTo([...mm].slice(0, 3));
}

function draw() {
  if (!lines) return; // there is no case, or one that cannot be read
  setWindow();
  const layers = [image];
  const opacity = overlaysOn ? Number(at("opacity").value) : 0;
  if (facts.marks.length > 1 && overlaysOn) {
    areas.colormapLabel = colours(isCompared() ? differenceColour : areaColour);
    areas.opacity = opacity;
    layers.push(areas);
    if (!isCompared() && at("reference").value === "outline") {
      lines.colormapLabel = colours((mark) => mark.is_border && colourOf(about.labels, mark.reference));
      layers.push(lines);
    }
  }
  viewer.volumes = layers;
  viewer.setVolume(image, 0); // uploads and draws everything, once
  viewer.createOnLocationChange();
  at("difference-colours").hidden = !isCompared();
  at("label-colours").hidden = isCompared();
  tell(`case ${place + 1} of ${about.n_cases}, ${about.channels[at("channel").value]}`);
}

function isCompared() {
  return at("disagreement").checked && facts.is_compared;
}

function differenceOf(mark) {
  return at("region").value ? mark.difference_in[at("region").value] : mark.difference;
}

const differenceColour = (mark) => colourOf(about.differences, differenceOf(mark));

function areaColour(mark) {
  const prediction = at("prediction").value && colourOf(about.labels, mark.prediction);
  const reference = at("reference").value === "filled" && colourOf(about.labels, mark.reference);
  if (!prediction || !reference) return prediction || reference;
  return prediction.map((part, index) => (part + reference[index]) / 2);
}

function colourOf(legend, value) {
  const found = legend.find(([known]) => known === value);
  return found && [1, 3, 5].map((start) => parseInt(found[2].slice(start, start + 2), 16));
}

// NiiVue's table of colours, by the number of the mark.
function colours(colour) {
  const lut = new Uint8ClampedArray(4 * facts.marks.length);
  facts.marks.forEach((mark, number) => {
    const found = colour(mark);
    if (found) lut.set([...found, 255], 4 * number);
  });
  return { lut, min: 0, max: facts.marks.length - 1 };
}

function setWindow() {
  const choice = at("window").value;
  if (choice === "auto") [image.cal_min, image.cal_max] = [image.robust_min, image.robust_max];
  else if (choice === "bright") [image.cal_min, image.cal_max] = [(image.robust_min + image.robust_max) / 2, image.robust_max];
  else if (choice === "full") [image.cal_min, image.cal_max] = range(image.img);
  else [image.cal_min, image.cal_max] = choice.split(" ").map(Number);
}

function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

// An image of one slice has one plane to look at.
function setPlane() {
  if (!facts) return;
  const flat = facts.shape_zyx.indexOf(1); // the axis: z, y, x is what axial, coronal, sagittal lie across
  at("plane").disabled = flat >= 0;
  viewer.setSliceType(flat >= 0 ? flat : Number(at("plane").value));
}

function moveTo(mm) {
  viewer.scene.crosshairPos = viewer.mm2frac(mm);
  viewer.createOnLocationChange();
  viewer.drawScene();
}

function moveSlice(step) {
  if (!lines) return;
  const move = [0, 0, 0];
  move[AXIS_OF_PLANE[viewer.opts.sliceType]] = step;
  viewer.moveCrosshairInVox(...move);
}

viewer.onLocationChange = (location) => {
  const [x, y, z] = location.mm;
  const side = (value, plus, minus) => `${value <= -0.05 ? minus : plus} ${Math.abs(value).toFixed(1)}`;
  const words = [`${side(x, "right", "left")}, ${side(y, "front", "back")}, ${side(z, "top", "bottom")} mm`];
  if (lines) {
    const index = facts.voxel_of_mm.map(([a, b, c, d]) => Math.round(a * x + b * y + c * z + d));
    words.push(`voxel ${index.join(", ")} of the file`);
    const valueIn = (one) => one.getValue(...one.mm2vox([...location.mm].slice(0, 3)));
    words.push(`intensity ${Number(valueIn(image).toPrecision(4))}`);
    const here = facts.marks[valueIn(areas)];
    const named = (legend, value) => (legend.find(([known]) => known === value) ?? [0, "none"])[1];
    if (facts.has_reference) words.push(`reference: ${named(about.labels, here.reference)}`);
    if (facts.has_prediction) words.push(`prediction: ${named(about.labels, here.prediction)}`);
    if (isCompared()) words.push(`disagreement: ${named(about.differences, differenceOf(here))}`);
  }
  at("position").textContent = words.join(" · ");
};

function choose(id, value) {
  at(id).value = value;
  at(id).dispatchEvent(new Event("change"));
}

const KEYS = {
  j: () => go(1),
  ArrowRight: () => go(1),
  k: () => go(-1),
  ArrowLeft: () => go(-1),
  ArrowUp: () => moveSlice(1),
  ArrowDown: () => moveSlice(-1),
  o: () => { overlaysOn = !overlaysOn; inTurn(draw); },
  d: () => at("disagreement").click(),
  f: () => choose("reference", at("reference").value === "outline" ? "filled" : "outline"),
  "+": () => choose("opacity", Number(at("opacity").value) + 0.1),
  "-": () => choose("opacity", Number(at("opacity").value) - 0.1),
};

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=range]")) return;
  const channel = Number(event.key) - 1;
  if (KEYS[event.key]) KEYS[event.key]();
  else if (channel >= 0 && channel < about.channels.length) choose("channel", String(channel));
  else return;
  event.preventDefault();
  event.stopPropagation(); // NiiVue has keys of its own
}, true);

at("list").addEventListener("click", (event) => {
  const row = event.target.closest("li");
  if (row) open(Number(row.dataset.case));
});
at("metric").addEventListener("change", () => inTurn(order));
at("region").addEventListener("change", () => inTurn(async () => { await order(); draw(); }));
at("channel").addEventListener("change", () => inTurn(changeChannel));
at("plane").addEventListener("change", setPlane);
for (const id of ["window", "reference", "prediction", "disagreement", "opacity"]) {
  at(id).addEventListener("change", () => inTurn(draw));
}
for (const option of at("window").options) option.hidden = option.text.startsWith("CT") && !IS_CT;
if (IS_CT) at("window").value = "-160 240";

inTurn(async () => {
  await viewer.attachToCanvas(at("picture"));
  await order();
  if (rows().length) open(Number(rows()[0].dataset.case));
});
