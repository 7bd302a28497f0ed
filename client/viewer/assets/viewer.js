// The page's behaviour: which case, which volumes, which keys. NiiVue draws.
"use strict";

const about = JSON.parse(document.getElementById("about").textContent);
const at = (id) => document.getElementById(id);
const AXIS_OF_PLANE = { 0: 2, 1: 1, 2: 0, 3: 2 }; // what "up and down a slice" moves along: x, y, z
const LOOKED_UP = about.channels.some((name) => name.toLowerCase() === "ct");

const viewer = new niivue.Niivue({
  isRadiologicalConvention: true,
  multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
  dragAndDropEnabled: false, // files of this machine are opened by the command only
  viewModeHotKey: "",
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
  crosshairColor: [0.55, 0.62, 0.7, 1],
  crosshairWidth: 0.3,
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
    tell("loading");
    facts = await (await asked(`case/${number}`)).json();
    at("case").innerHTML = facts.html; // as above
    at("disagreement").disabled = !(facts.reference && facts.prediction);
    await showImage();
    moveTo(facts.focus_mm);
  });
}

async function showImage() {
  const channel = at("channel").value;
  const image = await volume(`case/${shown}/image/${channel}.nii`, "image");
  viewer.volumes = [];
  viewer.addVolume(image);
  setWindow();
  setPlane();
  await showLabels();
  tell(`case ${place + 1} of ${about.n_cases}, ${about.channels[channel]}`);
}

// A volume by our own request, so that what is wrong with a file is said in the server's words.
async function volume(address, name) {
  const content = await (await asked(address)).arrayBuffer();
  const made = await niivue.NVImage.loadFromUrl({ url: content, name: "volume.nii" });
  made.name = name;
  return made;
}

function isCompared() {
  return at("disagreement").checked && !at("disagreement").disabled;
}

// Which label volumes are wanted, in the order in which they are drawn, each with its opacity.
function wanted() {
  const opacity = overlaysOn ? Number(at("opacity").value) : 0; // what is not seen is still named in words
  const style = at("reference").value;
  const compared = isCompared();
  const layers = [];
  if (facts.prediction) {
    layers.push(["prediction", about.labels, at("prediction").value && !compared ? opacity : 0]);
  }
  if (facts.reference) {
    layers.push(["reference", about.labels, style === "reference" && !compared ? opacity : 0]);
  }
  if (facts.reference && overlaysOn && style === "outline" && !compared) layers.push(["outline", about.labels, 1]);
  if (compared) layers.push(["disagreement", about.differences, opacity]);
  return layers;
}

async function showLabels() {
  const layers = wanted();
  const query = new URLSearchParams({ region: at("region").value });
  const names = layers.map(([kind]) => (kind === "disagreement" ? `${kind}?${query}` : kind));
  for (const old of viewer.volumes.slice(1)) {
    if (!names.includes(old.name)) viewer.removeVolume(old);
  }
  for (const [index, [kind, legend, opacity]] of layers.entries()) {
    let layer = viewer.volumes.find((one) => one.name === names[index]);
    if (!layer) {
      layer = await volume(`case/${shown}/${kind}.nii?${query}`, names[index]);
      layer.colormapLabel = colours(legend);
      viewer.addVolume(layer);
    }
    layer.opacity = opacity;
  }
  viewer.updateGLVolume();
  at("difference-colours").hidden = !isCompared();
  at("label-colours").hidden = isCompared();
  viewer.createOnLocationChange(); // the words below name the labels
}

// NiiVue's table of colours by label, from [value, name, "#rrggbb"].
function colours(legend) {
  const last = Math.max(...legend.map(([value]) => value));
  const lut = new Uint8ClampedArray(4 * (last + 1));
  for (const [value, , colour] of legend) {
    const parts = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
    lut.set([...parts, 255], 4 * value);
  }
  return { lut, min: 0, max: last };
}

function setWindow() {
  const image = viewer.volumes[0];
  if (!image) return;
  const choice = at("window").value;
  if (choice === "auto") [image.cal_min, image.cal_max] = [image.robust_min, image.robust_max];
  else if (choice === "bright") [image.cal_min, image.cal_max] = [(image.robust_min + image.robust_max) / 2, image.robust_max];
  else if (choice === "full") [image.cal_min, image.cal_max] = range(image.img);
  else [image.cal_min, image.cal_max] = choice.split(" ").map(Number);
  viewer.updateGLVolume();
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
  const move = [0, 0, 0];
  move[AXIS_OF_PLANE[viewer.opts.sliceType]] = step;
  viewer.moveCrosshairInVox(...move);
}

viewer.onLocationChange = (location) => {
  const [x, y, z] = location.mm;
  const side = (value, plus, minus) => `${value < 0 ? minus : plus} ${Math.abs(value).toFixed(1)}`;
  const where = `${side(x, "right", "left")}, ${side(y, "front", "back")}, ${side(z, "top", "bottom")} mm`;
  const values = location.values.map(({ name, value }) => {
    if (name === "image") return `intensity ${Number(value.toPrecision(4))}`;
    const isDifference = name.startsWith("disagreement");
    const legend = isDifference ? about.differences : about.labels;
    const label = legend.find(([known]) => known === Math.round(value));
    const words = isDifference ? "disagreement" : name;
    return words === "outline" ? "" : `${words}: ${label ? label[1] : "none"}`;
  });
  at("position").textContent = [where, `voxel ${location.vox.join(", ")}`, ...values].filter(Boolean).join(" · ");
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
  o: () => { overlaysOn = !overlaysOn; inTurn(showLabels); },
  d: () => at("disagreement").click(),
  f: () => choose("reference", at("reference").value === "outline" ? "reference" : "outline"),
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
at("region").addEventListener("change", () => inTurn(async () => { await order(); await showLabels(); }));
at("channel").addEventListener("change", () => inTurn(async () => { const mm = viewer.frac2mm(viewer.scene.crosshairPos); await showImage(); moveTo([...mm].slice(0, 3)); }));
at("plane").addEventListener("change", setPlane);
at("window").addEventListener("change", setWindow);
for (const id of ["reference", "prediction", "disagreement", "opacity"]) {
  at(id).addEventListener("change", () => inTurn(showLabels));
}
for (const option of at("window").options) option.hidden = option.text.startsWith("CT") && !LOOKED_UP;

inTurn(async () => {
  await viewer.attachToCanvas(at("picture"));
  await order();
  if (rows().length) open(Number(rows()[0].dataset.case));
});
