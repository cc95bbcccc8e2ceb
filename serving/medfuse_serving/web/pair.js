// Two viewers in, both in step out: what a hand does to one, the other does too. They lie over
// each other in mm where both headers give a spacing, or else by their relative place.

import { text, word } from "./pieces.js";

const state = { linked: true, windowed: false };
let leader = null; // the viewer that a hand was on last

/** Find the two viewers, once both have a frame; the present study's comes first. */
function find() {
  const viewers = [...document.querySelectorAll("mf-viewer")].filter((viewer) => viewer.frame);
  return viewers.length === 2 ? viewers : null;
}

/** Find the viewer that is to follow another; null where there is none. */
function follower(viewer) {
  const both = state.linked ? find() : null;
  return both?.includes(viewer) ? both.find((one) => one !== viewer) : null;
}

/** Tell that a hand moved or zoomed a viewer. */
export function moved(viewer) {
  leader = viewer;
  const other = follower(viewer);
  if (other) other.look(layOver(viewer, other));
}

/** Tell that a hand changed a viewer's grey values. */
export function windowed(viewer) {
  leader = viewer;
  const other = state.windowed ? follower(viewer) : null;
  if (other) other.take(viewer.state);
}

/** Tell that a hand turned a viewer to another frame. */
export function turned(viewer) {
  leader = viewer;
  const other = follower(viewer);
  const [count, others] = [viewer.read.length, other?.read.length];
  if (!other || count < 2) return; // one frame alone has no place among others
  const number = Math.round((viewer.state.number * (others - 1)) / (count - 1));
  if (number !== other.state.number) other.show(number);
}

/** Tell that a viewer has another frame, or another size. */
export function arrived() {
  const both = find();
  if (both) {
    const one = both.includes(leader) ? leader : both[0];
    turned(one);
    moved(one);
    windowed(one);
  }
  for (const viewer of document.querySelectorAll("mf-viewer")) viewer.label?.();
  for (const element of document.querySelectorAll("mf-pair")) element.describe?.();
}

/** Turn what is linked on or off, and say so. */
export function toggle(what) {
  if (!find()) return;
  state[what] = !(state[what] && state.linked);
  if (state[what]) state.linked = true;
  arrived();
  for (const element of document.querySelectorAll("mf-pair")) element.tell();
}

/** Give where a viewer has to look to show what another shows. */
export function layOver(viewer, other) {
  const { header } = viewer.frame;
  const { header: own } = other.frame;
  const { scale, fit } = viewer.geometry();
  const { x, y, zoom } = viewer.state;
  if (!header.spacing || !own.spacing) return { x, y, zoom: zoom ? (zoom / fit) * other.fit().scale : 0 };
  const [tall, wide] = header.spacing;
  const [ownTall, ownWide] = own.spacing;
  return {
    x: 0.5 + ((x - 0.5) * header.columns * wide) / (own.columns * ownWide),
    y: 0.5 + ((y - 0.5) * header.rows * tall) / (own.rows * ownTall),
    zoom: (scale * ownWide) / wide,
  };
}

/** The switches of the two, beside the prior study's viewer. */
class Pair extends HTMLElement {
  static observedAttributes = ["data-shelf"]; // another one comes with another language

  connectedCallback() {
    this.root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    this.attributeChangedCallback();
  }

  attributeChangedCallback() {
    queueMicrotask(() => this.isConnected && this.build());
  }

  build() {
    const button = (name, id) =>
      `<button type="button" data-do="${name}">${text(this, id)}</button>`;
    this.root.innerHTML =
      `<link rel="stylesheet" href="${new URL("viewer.css", import.meta.url)}">` +
      `<div class="mf-tools" role="group" aria-label="${text(this, "pair")}">` +
      button("linked", "linked") + button("windowed", "windowed") +
      '<span class="mf-how"></span></div><p class="mf-hidden" role="status"></p>';
    this.root.querySelector("div").addEventListener("click", (event) => {
      const what = event.target.closest("[data-do]")?.dataset.do;
      if (what) toggle(what);
    });
    this.describe();
  }

  /** Show what is linked, and how. */
  describe() {
    if (!this.root?.firstChild) return;
    for (const button of this.root.querySelectorAll("[data-do]")) {
      button.setAttribute("aria-pressed", String(state[button.dataset.do] && state.linked));
    }
    const both = find();
    const inMm = both?.every((viewer) => viewer.frame.header.spacing);
    const how = state.linked ? (inMm ? "in-mm" : "by-place") : "apart";
    this.root.querySelector(".mf-how").textContent = both ? word(how) : "";
  }

  tell() {
    this.root.querySelector("[role=status]").textContent = this.root.querySelector(".mf-how").textContent;
  }
}

customElements.define("mf-pair", Pair);
