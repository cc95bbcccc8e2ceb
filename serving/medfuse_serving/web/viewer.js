// The viewer of a study's images: true pixels in, greys on a canvas out, with maps laid over them.
// A custom element without a build step: <mf-viewer data-shelf="..." data-read="[0,null]">, and
// <mf-map data-shelf="..."> beside it while there is an explanation. A second one, with `data-prior`,
// shows an earlier study; `pair.js` keeps the two in step. On the page, a button of it takes the image
// away that it shows: it then says which is `unwanted`.

import * as pair from "./pair.js";
import { fetchPiece, text, word } from "./pieces.js";
import { sheet, strength } from "./strength.js";

const KEPT_FRAMES = 6; // decoded frames in memory; a neighbour is there before it is asked for
const ZOOM_STEP = 1.25;
const MOST_ZOOM = 32;
const STYLE = new URL("viewer.css", import.meta.url);
const TYPED = ["center", "width"]; // fields that are typed in
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)$/;

// Greys ---------------------------------------------------------------------------------------

/** Make the function from a modality value to a brightness from 0 to 1 (PS3.3 C.11.2). */
export function makeTransform(view) {
  if (view.entries) {
    const { first, entries, top } = view;
    const last = entries.length - 1;
    return (x) => entries[Math.min(Math.max(roundEven(x) - first, 0), last)] / top;
  }
  let { center, width } = view;
  if (view.function === "SIGMOID") {
    return (x) => 1 / (1 + Math.exp((-4 * (x - center)) / width));
  }
  if (view.function === "LINEAR") {
    center -= 0.5;
    width -= 1;
    if (width === 0) return (x) => (x > center ? 1 : 0);
  }
  return (x) => Math.min(Math.max((x - center) / width + 0.5, 0), 1);
}

/** Make the function from a stored value to a modality value (PS3.3 C.11.1). */
export function makeModality(header) {
  if (header.table) {
    const { first, entries } = header.table;
    const last = entries.length - 1;
    return (v) => entries[Math.min(Math.max(v - first, 0), last)];
  }
  return (v) => v * header.slope + header.intercept;
}

/** Make the function from a stored value to one of 256 greys: the nearest, of two the brighter. */
export function makeGrey(header, view, invert) {
  const modality = makeModality(header);
  const transform = makeTransform(view);
  const flip = header.inverted !== invert;
  const [low, high] = header.padding ?? [1, 0];
  return (v) => {
    if (Number.isNaN(v) || (v >= low && v <= high)) return 0;
    const y = transform(modality(v));
    return Math.floor(255 * (flip ? 1 - y : y) + 0.5 + 1e-9);
  };
}

/** Paint a frame's pixels with their greys. */
export function paint(frame, view, invert, pixels) {
  const out = new Uint32Array(pixels.data.buffer);
  const values = frame.values;
  const grey = makeGrey(frame.header, view, invert);
  const colour = (g) => 0xff000000 | (g << 16) | (g << 8) | g;
  const size = values.BYTES_PER_ELEMENT;
  if (values instanceof Float32Array) {
    for (let i = 0; i < values.length; i++) out[i] = colour(grey(values[i]));
    return;
  }
  const codes = size === 1 ? new Uint8Array(values.buffer, values.byteOffset, values.length)
    : new Uint16Array(values.buffer, values.byteOffset, values.length);
  const every = size === 1 ? 256 : 65536;
  const signed = values instanceof Int8Array || values instanceof Int16Array;
  const table = new Uint32Array(every);
  for (let c = 0; c < every; c++) table[c] = colour(grey(signed && c >= every / 2 ? c - every : c));
  for (let i = 0; i < codes.length; i++) out[i] = table[codes[i]];
}

/** Round as IEEE 754 and NumPy do: of two nearest whole numbers the even one. */
function roundEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

const TYPES = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, float32: Float32Array,
};

/** Fetch a frame with its stored values. */
async function fetchFrame(shelf, number) {
  const { header, body } = await fetchPiece(shelf, number);
  return { header, values: new TYPES[header.type](body.buffer, body.byteOffset) };
}

/** Fetch a map: its colours, and its outlines as SVG. */
async function fetchMap(shelf, number) {
  const { header, body } = await fetchPiece(shelf, number);
  const image = await createImageBitmap(new Blob([body], { type: "image/png" }), {
    premultiplyAlpha: "none", colorSpaceConversion: "none",
  });
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return { header, pixels: context.getImageData(0, 0, image.width, image.height) };
}

// The element ---------------------------------------------------------------------------------

const kept = new Map(); // how a study was last looked at, by its shelf

// What is shown lies in a shadow tree: Gradio gives an element that it has made its own children
// back whenever the page around it changes.
class Viewer extends HTMLElement {
  static observedAttributes = ["data-shelf", "aria-label"];

  shading = () => this.shade();

  connectedCallback() {
    this.plan();
  }

  attributeChangedCallback() {
    this.label();
    this.plan();
  }

  /** Open the shelf once all attributes are there. */
  plan() {
    queueMicrotask(() => {
      if (this.isConnected && this.dataset.shelf !== this.shelf) this.open();
    });
  }

  open() {
    this.observer?.disconnect();
    this.root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    this.root.adoptedStyleSheets = [sheet];
    this.frame = undefined;
    this.shelf = this.dataset.shelf;
    this.read = JSON.parse(this.dataset.read);
    this.frames = new Map();
    this.state = kept.get(this.shelf) ?? {
      number: 0, preset: 0, window: null, invert: false, tool: "window",
      zoom: 0, x: 0.5, y: 0.5, line: null,
    };
    const shown = [...document.querySelectorAll("mf-viewer")].map((viewer) => viewer.dataset.shelf);
    for (const shelf of kept.keys()) if (!shown.includes(shelf)) kept.delete(shelf);
    kept.set(this.shelf, this.state);
    this.map = null;
    this.written = {}; // what the viewer wrote into the fields last
    this.faults = {};
    const had = this.root.activeElement; // on another study, the focus stays where it is
    const place = had && (had === this.stage ? ".mf-stage" : Object.entries(had.dataset)
      .map(([name, value]) => `[data-${name}="${value}"]`).join());
    this.build();
    this.listen();
    if (place) this.root.querySelector(place)?.focus({ preventScroll: true });
    this.observer = new ResizeObserver(() => {
      this.place();
      pair.arrived();
    });
    this.observer.observe(this.stage);
    document.addEventListener("mf-strength", this.shading);
    this.show(this.state.number);
    if (!("prior" in this.dataset)) document.querySelector("mf-map")?.attach(this);
  }

  disconnectedCallback() {
    this.observer?.disconnect();
    document.removeEventListener("mf-strength", this.shading);
    this.shelf = undefined;
    this.frame = undefined;
    pair.arrived();
  }

  /** Say which study it is, and what keys do. */
  label() {
    const keys = ["keys"];
    if (document.querySelector("mf-viewer[data-prior]")) keys.push("pair-keys");
    if (this.map) keys.push("map-keys");
    const name = this.getAttribute("aria-label");
    const said = keys.map(word).join(" ");
    this.stage?.setAttribute("aria-label", name ? `${name}: ${said}` : said);
  }

  build() {
    const button = (name, label, extra = "") =>
      `<button type="button" data-do="${name}" ${extra}>${label}</button>`;
    const box = (name) => `<input type="text" autocomplete="off" spellcheck="false" data-set="${name}" aria-describedby="fault">`;
    const tool = (name, label) =>
      button(`tool-${name}`, label, `aria-pressed="${this.state.tool === name}"`);
    this.root.innerHTML =
      `<link rel="stylesheet" href="${STYLE}"><div class="mf-tools" role="toolbar" aria-label="${text(this, "tools")}">` +
      tool("window", text(this, "window")) + tool("pan", text(this, "pan")) + tool("measure", text(this, "measure")) +
      `<label>${text(this, "preset")} <select data-set="preset"></select></label>` +
      `<label>${text(this, "level")} ${box("center")}</label><label>${text(this, "width")} ${box("width")}</label>` +
      button("invert", text(this, "invert"), `aria-pressed="${this.state.invert}"`) +
      button("zoom-out", "\u2212", `aria-label="${text(this, "zoom-out")}"`) +
      button("zoom-in", "+", `aria-label="${text(this, "zoom-in")}"`) +
      button("native", "1:1", `aria-label="${text(this, "native")}"`) +
      button("reset", text(this, "reset")) +
      (this.findRemover() ? button("remove", text(this, "remove")) : "") +
      '</div><p class="mf-fault" id="fault" role="alert" hidden></p>' +
      `<div class="mf-stage" tabindex="0" role="application" aria-roledescription="${text(this, "viewer")}"` +
      ' aria-label="">' +
      '<div class="mf-layers"><canvas class="mf-pixels"></canvas>' +
      '<canvas class="mf-heat mf-overlay"></canvas>' +
      '<svg class="mf-marks mf-overlay" aria-hidden="true"></svg></div>' +
      '<svg class="mf-measure" aria-hidden="true"></svg></div>' +
      `<label class="mf-turn">${text(this, "frame")} <input type="range" min="1" step="1" data-set="frame"` +
      "></label>" +
      '<p class="mf-reading"><span class="mf-what"></span> <span class="mf-how"></span> ' +
      '<span class="mf-point"></span></p>' +
      `<p class="mf-reading">${text(this, "screen")}</p><p class="mf-hidden" role="status"></p>`;
    const find = (selector) => this.root.querySelector(selector);
    this.stage = find(".mf-stage");
    this.label();
    this.layers = find(".mf-layers");
    this.canvas = find(".mf-pixels");
    this.heat = find(".mf-heat");
    this.marks = find(".mf-marks");
    this.ruler = find(".mf-measure");
    this.status = find("[role=status]");
    this.fault = find(".mf-fault");
    this.inputs = Object.fromEntries(
      [...this.root.querySelectorAll("[data-set]")].map((input) => [input.dataset.set, input]));
    this.inputs.frame.max = this.read.length;
    find(".mf-turn").hidden = this.read.length < 2;
  }

  // Frames --------------------------------------------------------------------------------------

  /** Turn to a frame by hand. */
  turn(number) {
    this.show(number);
    pair.turned(this);
  }

  async show(number) {
    const count = this.read.length;
    number = Math.min(Math.max(number, 0), count - 1);
    this.state.number = number;
    this.inputs.frame.value = number + 1;
    this.inputs.frame.setAttribute("aria-valuetext", `${number + 1} / ${count}`);
    const { shelf } = this;
    const stale = () => this.shelf !== shelf || this.state.number !== number || !this.isConnected;
    let frame;
    try {
      frame = await this.load(number);
    } catch (error) {
      if (stale()) return;
      this.frame = null;
      this.layers.hidden = true;
      this.tell(String(error.message));
      return;
    }
    if (stale()) return; // another is wanted by now
    const other = this.frame && !sameViews(this.frame.header.views, frame.header.views);
    this.frame = frame;
    this.layers.hidden = false;
    if (other || !this.state.window) this.choose(Math.min(this.state.preset, frame.header.views.length - 1));
    this.listPresets();
    this.paint();
    this.place();
    this.tell(frame.header.caption);
    this.showMap();
    pair.arrived();
    for (const near of [number + 1, number - 1]) {
      if (near >= 0 && near < count) this.load(near).catch(() => {});
    }
  }

  load(number) {
    let loading = this.frames.get(number);
    if (!loading) {
      loading = fetchFrame(this.shelf, number);
      loading.catch(() => this.frames.delete(number));
    }
    this.frames.delete(number);
    this.frames.set(number, loading);
    while (this.frames.size > KEPT_FRAMES) this.frames.delete(this.frames.keys().next().value);
    return loading;
  }

  // Window and level ----------------------------------------------------------------------------

  choose(preset) {
    this.state.preset = preset;
    this.state.window = { ...this.frame.header.views[preset] };
  }

  listPresets() {
    const options = this.frame.header.views.map((view, i) => {
      const option = document.createElement("option");
      option.value = i;
      option.textContent = view.name;
      return option;
    });
    this.inputs.preset.replaceChildren(...options);
    this.inputs.preset.value = this.state.preset;
  }

  /** Set the window by hand; a table gives way to the window of the same span. */
  adjust(center, width) {
    const now = this.span();
    const least = now.function === "LINEAR" ? 1 : 1e-6;
    this.state.window = {
      ...now, center: center ?? now.center, width: Math.max(width ?? now.width, least),
    };
    this.paint();
    pair.windowed(this);
  }

  /** Set it by a move of the hand, no finer than can be seen: what is shown is what is applied. */
  nudge(center, width) {
    const digits = Math.max(0, 4 - Math.floor(Math.log10(Math.max(width, 1e-6))));
    this.adjust(Number(center.toFixed(digits)), Number(width.toFixed(digits)));
  }

  /** Take another viewer's grey values. */
  take({ window, invert }) {
    this.state.window = { ...window };
    this.state.invert = invert;
    this.root.querySelector("[data-do=invert]").setAttribute("aria-pressed", String(invert));
    const preset = this.frame.header.views.findIndex((view) => sameViews(view, window));
    if (preset >= 0) this.inputs.preset.value = this.state.preset = preset;
    this.paint();
  }

  span() {
    const { window } = this.state;
    if (!window.entries) return window;
    const width = Math.max(window.entries.length, 2);
    return { center: window.first + width / 2, width, function: "LINEAR" };
  }

  paint() {
    const { header } = this.frame;
    this.canvas.width = header.columns;
    this.canvas.height = header.rows;
    const context = this.canvas.getContext("2d");
    const pixels = context.createImageData(header.columns, header.rows);
    paint(this.frame, this.state.window, this.state.invert, pixels);
    context.putImageData(pixels, 0, 0);
    this.writeWindow();
    this.describe();
  }

  // Where the picture lies ------------------------------------------------------------------------

  /** Pixels of the screen per column and per row of the picture, when it fills the stage. */
  fit() {
    const { rows, columns, spacing } = this.frame.header;
    const tall = spacing ? spacing[0] / spacing[1] : 1;
    return { tall, scale: Math.min(this.stage.clientWidth / columns, this.stage.clientHeight / (rows * tall)) };
  }

  geometry() {
    const { tall, scale: fit } = this.fit();
    const scale = this.state.zoom || fit;
    const { rows, columns } = this.frame.header;
    return {
      tall, scale, fit,
      left: this.stage.clientWidth / 2 - this.state.x * columns * scale,
      top: this.stage.clientHeight / 2 - this.state.y * rows * tall * scale,
    };
  }

  place() {
    if (!this.frame || !this.stage.clientWidth) return;
    const { tall, scale, left, top } = this.geometry();
    const { rows, columns } = this.frame.header;
    this.layers.style.width = `${columns}px`;
    this.layers.style.height = `${rows}px`;
    this.layers.style.transform = `translate(${left}px,${top}px) scale(${scale},${scale * tall})`;
    this.layers.classList.toggle("mf-enlarged", scale >= 2);
    this.drawLine();
    this.describe();
  }

  zoom(factor, at) {
    if (!this.frame) return;
    const before = this.geometry();
    const scale = Math.min(Math.max(before.scale * factor, Math.min(before.fit, 1) / 2), MOST_ZOOM);
    const point = at ?? { x: this.stage.clientWidth / 2, y: this.stage.clientHeight / 2 };
    const { rows, columns } = this.frame.header;
    const column = (point.x - before.left) / before.scale;
    const row = (point.y - before.top) / (before.scale * before.tall);
    this.state.zoom = scale;
    this.state.x = (column - (point.x - this.stage.clientWidth / 2) / scale) / columns;
    this.state.y = (row - (point.y - this.stage.clientHeight / 2) / (scale * before.tall)) / rows;
    this.place();
    pair.moved(this);
  }

  pan(dx, dy) {
    if (!this.frame) return;
    const { scale, tall } = this.geometry();
    const { rows, columns } = this.frame.header;
    const inside = (share) => Math.min(Math.max(share, 0), 1);
    this.state.zoom = scale;
    this.state.x = inside(this.state.x - dx / (columns * scale));
    this.state.y = inside(this.state.y - dy / (rows * scale * tall));
    this.place();
    pair.moved(this);
  }

  /** Look where another viewer looks. */
  look(place) {
    Object.assign(this.state, place);
    this.place();
  }

  /** Give the picture's column and row, with fractions, of a point of the stage. */
  toPicture(point) {
    const { left, top, scale, tall } = this.geometry();
    return { column: (point.x - left) / scale, row: (point.y - top) / (scale * tall) };
  }

  /** Give the same, or what is next to it in the picture where it lies outside. */
  toInside(point) {
    const { column, row } = this.toPicture(point);
    const { columns, rows } = this.frame.header;
    return { column: Math.min(Math.max(column, 0), columns), row: Math.min(Math.max(row, 0), rows) };
  }

  // Distances ------------------------------------------------------------------------------------

  drawLine() {
    const { line } = this.state;
    this.ruler.replaceChildren();
    if (!line || line.number !== this.state.number) return;
    const { left, top, scale, tall } = this.geometry();
    const [a, b] = [line.from, line.to ?? line.from].map((p) => (
      { x: left + p.column * scale, y: top + p.row * scale * tall }));
    const make = (name, values) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
      this.ruler.append(element);
      return element;
    };
    for (const kind of ["mf-case", "mf-line"]) {
      make("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: kind });
    }
    for (const p of [a, b]) make("circle", { cx: p.x, cy: p.y, r: 4, class: "mf-end" });
    const said = make("text", {});
    said.textContent = this.distance();
    // Beside the end that is moved, on the side where there is room for all of it.
    const { width, height } = said.getBBox();
    const { clientWidth, clientHeight } = this.stage;
    const x = b.x + 8 + width > clientWidth - 4 ? b.x - 8 - width : b.x + 8;
    said.setAttribute("x", Math.max(Math.min(x, clientWidth - 4 - width), 4));
    said.setAttribute("y", Math.max(Math.min(b.y - 8, clientHeight - 8), height));
  }

  /** Give the measured distance in mm, with where it holds, or in pixels where the header gives no spacing. */
  distance() {
    const { line } = this.state;
    if (!line?.to) return "";
    const spacing = this.frame.header.spacing;
    const [tall, wide] = spacing ?? [1, 1];
    const long = Math.hypot((line.to.row - line.from.row) * tall, (line.to.column - line.from.column) * wide);
    if (!spacing) return `${long.toFixed(0)} ${word("pixels")}`;
    return this.frame.header.length.replace("{length}", long.toFixed(1));
  }

  // Maps -----------------------------------------------------------------------------------------

  setMap(map) {
    this.map = map;
    this.marked = null;
    this.label();
    this.showMap();
  }

  async showMap() {
    const number = this.read[this.state.number];
    const map = this.map;
    this.heat.hidden = this.marks.hidden = true;
    if (map === null || number === null || !this.frame) return;
    const shown = this.state.number;
    let found;
    try {
      found = await map.load(number);
    } catch (error) {
      this.tell(String(error.message));
      return;
    }
    if (this.map !== map || this.state.number !== shown || !this.isConnected) return;
    this.found = found;
    this.heat.width = found.pixels.width;
    this.heat.height = found.pixels.height;
    this.marks.setAttribute("viewBox", `0 0 ${found.pixels.width} ${found.pixels.height}`);
    this.marks.innerHTML = found.header.marks;
    this.heat.hidden = this.marks.hidden = false;
    this.shade();
    this.mark(this.marked);
    map.say(found.header);
  }

  /** Mark an area of the evidence; null takes the mark off. */
  mark(name) {
    this.marked = name;
    if (!this.marks) return; // it is not built yet
    for (const part of this.marks.querySelectorAll("[data-evidence]")) {
      part.classList.toggle("mf-marked", part.dataset.evidence === name);
    }
  }

  /** List the areas that are seen, the strongest first. */
  listAreas() {
    if (this.marks.hidden) return [];
    return [...this.marks.querySelectorAll("path.mf-case")]
      .filter((path) => path.checkVisibility())
      .sort((one, other) => one.dataset.evidence.localeCompare(other.dataset.evidence, "en", { numeric: true }));
  }

  /** Find the area at a point of the stage. */
  findArea(point) {
    const { column, row } = this.toPicture(point);
    const { width, height } = this.found?.pixels ?? {};
    const { rows, columns } = this.frame.header;
    const at = new DOMPoint((column * width) / columns, (row * height) / rows);
    return this.listAreas().find((path) => path.isPointInFill(at))?.dataset.evidence ?? null;
  }

  /** Mark the next area, for those who go by keys. */
  nextArea() {
    const names = [...new Set(this.listAreas().map((path) => path.dataset.evidence))];
    if (!names.length) return;
    const name = names[(names.indexOf(this.marked) + 1) % names.length];
    this.send("mf-point", { name, keep: true });
  }

  /** Tell the page around of an area. */
  send(what, detail) {
    this.dispatchEvent(new CustomEvent(what, { bubbles: true, detail }));
  }

  /** Lay the map over the picture, without what is weaker than the threshold. */
  shade() {
    if (!this.found || !this.heat || this.heat.hidden) return;
    const { pixels, header } = this.found;
    const least = strength.threshold * header.full;
    const shown = new ImageData(new Uint8ClampedArray(pixels.data), pixels.width, pixels.height);
    for (let i = 3; i < shown.data.length; i += 4) if (shown.data[i] < least) shown.data[i] = 0;
    this.heat.getContext("2d").putImageData(shown, 0, 0);
  }

  // Hands and keys --------------------------------------------------------------------------------

  listen() {
    this.root.querySelector(".mf-tools").addEventListener("click", (event) => {
      const what = event.target.closest("[data-do]")?.dataset.do;
      if (what) this.act(what);
    });
    this.root.querySelector("[data-do=remove]")?.addEventListener("keydown", (event) => {
      if (event.repeat) event.preventDefault(); // a key that is held takes one image away
    });
    for (const name of ["frame", "preset"]) {
      this.inputs[name].addEventListener("input", () => this.set(name, Number(this.inputs[name].value)));
    }
    for (const name of TYPED) {
      this.inputs[name].addEventListener("keydown", (event) => {
        if (event.key === "Enter") this.enter(name);
        if (event.key === "Escape") this.restore(name);
      });
      this.inputs[name].addEventListener("blur", () => this.leave(name));
    }
    const { stage } = this;
    const at = (event) => {
      const box = stage.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("wheel", (event) => {
      if (!this.frame || (this.read.length < 2 && !event.ctrlKey)) return; // the page scrolls
      event.preventDefault();
      const down = Math.sign(event.deltaY);
      if (!event.ctrlKey) this.turn(this.state.number + down);
      else this.zoom(down > 0 ? 1 / ZOOM_STEP : ZOOM_STEP, at(event));
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      if (!this.frame) return;
      stage.setPointerCapture(event.pointerId);
      const tool = event.button === 0 ? this.state.tool : "pan";
      this.drag = { tool, last: at(event), span: this.span(), start: at(event) };
      if (tool === "measure") {
        const point = this.toInside(at(event));
        this.state.line = { number: this.state.number, from: point, to: point };
        this.drawLine();
      }
    });
    stage.addEventListener("pointermove", (event) => {
      if (!this.frame) return;
      const point = at(event);
      if (this.drag) this.follow(point);
      else this.hover(point);
      this.point(point);
    });
    stage.addEventListener("pointerleave", () => this.hover(null));
    for (const end of ["pointerup", "pointercancel"]) {
      stage.addEventListener(end, () => {
        if (this.drag?.tool === "measure") this.tell(this.distance());
        this.drag = null;
      });
    }
    stage.addEventListener("dblclick", () => this.act("reset"));
    stage.addEventListener("keydown", (event) => this.press(event));
  }

  /** Mark the area under the pointer. */
  hover(point) {
    const name = point && this.map ? this.findArea(point) : null;
    if (name === this.hovered) return;
    this.hovered = name;
    this.send("mf-point", { name });
  }

  /** Do what the tool in hand does on its way to a point. */
  follow(point) {
    const { tool, last, start, span } = this.drag;
    if (tool === "pan") this.pan(point.x - last.x, point.y - last.y);
    if (tool === "window") {
      // One screen's height is twice the width of the window that the drag began with.
      const step = (2 * span.width) / this.stage.clientHeight;
      this.nudge(span.center + (point.y - start.y) * step, span.width + (point.x - start.x) * step);
    }
    if (tool === "measure") {
      this.state.line.to = this.toInside(point);
      this.drawLine();
    }
    this.drag.last = point;
  }

  /** Find the page's button that takes away the image that is shown, where there is one. */
  findRemover() {
    return document.getElementById("prior" in this.dataset ? "remove-prior-image" : "remove-image");
  }

  act(what) {
    if (what === "remove") {
      this.unwanted = JSON.stringify([this.shelf, this.state.number]);
      this.findRemover().click();
    }
    if (!this.frame) return;
    if (what.startsWith("tool-")) {
      this.state.tool = what.slice(5);
      if (this.state.tool === "measure") this.startLine();
      for (const button of this.root.querySelectorAll("[data-do^=tool-]")) {
        button.setAttribute("aria-pressed", String(button.dataset.do === what));
      }
    }
    if (what === "invert") {
      this.state.invert = !this.state.invert;
      this.root.querySelector("[data-do=invert]").setAttribute("aria-pressed", String(this.state.invert));
      this.paint();
      pair.windowed(this);
    }
    if (what === "zoom-in") this.zoom(ZOOM_STEP);
    if (what === "zoom-out") this.zoom(1 / ZOOM_STEP);
    if (what === "native") this.zoom(1 / this.geometry().scale);
    if (what === "reset") {
      Object.assign(this.state, { zoom: 0, x: 0.5, y: 0.5, line: null, invert: false });
      this.root.querySelector("[data-do=invert]").setAttribute("aria-pressed", "false");
      this.choose(0);
      this.inputs.preset.value = 0;
      this.paint();
      this.place();
      pair.moved(this);
      pair.windowed(this);
    }
  }

  set(name, value) {
    if (!this.frame) return;
    if (name === "frame") this.turn(value - 1);
    if (name === "preset") {
      this.choose(value);
      this.paint();
      pair.windowed(this);
    }
  }

  /** Take the level or the width that was typed, exactly as it is, or say why it is not taken. */
  enter(name) {
    if (!this.frame) return;
    const typed = this.inputs[name].value.trim();
    if (typed === this.written[name]) return this.accuse(name, null);
    const value = NUMBER.test(typed) ? Number(typed) : NaN;
    const fault = this.findFault(name, value);
    this.accuse(name, fault);
    if (fault) return;
    this.written[name] = typed;
    this.adjust(name === "center" ? value : undefined, name === "width" ? value : undefined);
  }

  /** Leave a field: it shows the window as it is, or what was typed and is not taken. */
  leave(name) {
    this.enter(name);
    if (this.frame && !this.faults[name]) this.restore(name);
  }

  restore(name) {
    this.inputs[name].value = this.written[name];
    this.accuse(name, null);
  }

  findFault(name, value) {
    if (!Number.isFinite(value)) return "not-a-number";
    if (name === "center") return null;
    if (value <= 0) return "width-not-positive";
    return this.span().function === "LINEAR" && value < 1 ? "width-below-one" : null; // PS3.3 C.11.2.1.2
  }

  /** Mark a field whose value is not taken, with the reason; null takes the mark off. */
  accuse(name, fault) {
    this.faults[name] = fault;
    const input = this.inputs[name];
    if (fault) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    const said = Object.values(this.faults).find(Boolean);
    this.fault.textContent = said ? word(said) : "";
    this.fault.hidden = !said;
  }

  /** Write the window into its fields, but never over what is being typed, nor how it was typed. */
  writeWindow() {
    const span = this.span();
    for (const name of TYPED) {
      const input = this.inputs[name];
      const exact = String(Number(span[name].toPrecision(15)));
      const typing = this.root.activeElement === input && input.value !== this.written[name];
      if (Number(this.written[name]) !== Number(exact)) this.written[name] = exact;
      if (!typing) this.restore(name);
    }
  }

  press(event) {
    if (!this.frame || event.ctrlKey || event.metaKey || event.altKey) return;
    const { header } = this.frame;
    const span = this.span();
    const step = span.width / 20;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    const keys = {
      PageDown: () => this.turn(this.state.number + 1),
      PageUp: () => this.turn(this.state.number - 1),
      Home: () => this.turn(0),
      End: () => this.turn(this.read.length - 1),
      "+": () => this.act("zoom-in"), "=": () => this.act("zoom-in"), "-": () => this.act("zoom-out"),
      i: () => this.act("invert"), r: () => this.act("reset"), n: () => this.act("native"),
      w: () => this.act("tool-window"), p: () => this.act("tool-pan"), m: () => this.act("tool-measure"),
      l: () => pair.toggle("linked"), s: () => pair.toggle("windowed"),
      e: () => this.nextArea(),
      Enter: () => (this.state.tool === "measure" ? this.fixEnd() : this.send("mf-choose", { name: this.marked })),
    };
    if (arrow) {
      const [dx, dy] = arrow;
      if (event.shiftKey || this.state.tool === "pan") this.pan(-30 * dx, -30 * dy);
      else if (this.state.tool === "measure") this.moveEnd(dx, dy);
      else this.nudge(span.center + dy * step, span.width + dx * step);
    } else if (/^[1-9]$/.test(event.key) && event.key <= header.views.length) {
      this.inputs.preset.value = event.key - 1;
      this.choose(event.key - 1);
      this.paint();
      pair.windowed(this);
      this.tell(header.views[event.key - 1].name);
    } else if (keys[event.key]) {
      keys[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Begin a line in the middle of what is seen, for those who measure by keys. */
  startLine() {
    const point = this.toInside({ x: this.stage.clientWidth / 2, y: this.stage.clientHeight / 2 });
    this.state.line = { number: this.state.number, from: point, to: null };
    this.drawLine();
  }

  /** Fix the end that is being moved: the first, and then the second, which begins anew. */
  fixEnd() {
    const { line } = this.state;
    if (this.state.tool !== "measure" || !line) return;
    if (line.to) {
      this.tell(this.distance());
      this.startLine();
    } else {
      line.to = { ...line.from };
      this.drawLine();
    }
  }

  moveEnd(dx, dy) {
    const { line } = this.state;
    if (!line || line.number !== this.state.number) return this.startLine();
    const end = line.to ?? line.from;
    const { scale, tall } = this.geometry();
    const step = (size) => Math.max(1, Math.round(8 / size));
    const { rows, columns } = this.frame.header;
    end.column = Math.min(Math.max(end.column + dx * step(scale), 0), columns);
    end.row = Math.min(Math.max(end.row + dy * step(scale * tall), 0), rows);
    this.drawLine();
    if (line.to) this.tell(this.distance());
  }

  // Words ------------------------------------------------------------------------------------------

  describe() {
    if (!this.frame) return;
    this.root.querySelector(".mf-what").textContent = this.frame.header.caption;
    this.root.querySelector(".mf-how").textContent =
      `\u00b7 ${word("zoom")} ${Math.round(100 * this.geometry().scale)} %`;
  }

  /** Say the value under the pointer. */
  point(point) {
    const { column, row } = this.toPicture(point);
    const [x, y] = [Math.floor(column), Math.floor(row)];
    const { rows, columns, unit } = this.frame.header;
    const inside = x >= 0 && y >= 0 && x < columns && y < rows;
    const value = inside ? makeModality(this.frame.header)(this.frame.values[y * columns + x]) : null;
    this.root.querySelector(".mf-point").textContent =
      inside ? `\u00b7 (${x}, ${y}): ${Number(value.toPrecision(6))} ${unit}` : "";
  }

  tell(words) {
    this.status.textContent = words;
    if (this.frame === null) this.root.querySelector(".mf-what").textContent = words;
  }
}

function sameViews(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Stands beside the viewer while there is a map, and hands it over. */
class ViewerMap extends HTMLElement {
  static observedAttributes = ["data-shelf"];

  connectedCallback() {
    this.root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    this.attributeChangedCallback();
  }

  disconnectedCallback() {
    if (this.viewer?.map === this) this.viewer.setMap(null);
  }

  attributeChangedCallback() {
    this.maps = new Map();
    const viewer = document.querySelector("mf-viewer:not([data-prior])");
    if (this.isConnected && viewer?.stage) this.attach(viewer);
  }

  attach(viewer) {
    this.viewer = viewer;
    viewer.setMap(this);
  }

  load(number) {
    if (!this.maps.has(number)) {
      const loading = fetchMap(this.dataset.shelf, number);
      loading.catch(() => this.maps.delete(number));
      this.maps.set(number, loading);
    }
    return this.maps.get(number);
  }

  /** Say what is said of one frame's map. */
  say(header) {
    this.root.textContent = header.said;
  }
}

customElements.define("mf-viewer", Viewer);
customElements.define("mf-map", ViewerMap);
