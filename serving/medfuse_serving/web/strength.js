// How strong the maps are drawn, of image, words and spectrogram alike: their opacity, and from
// which share of the scale's full value on. <mf-strength data-shelf="..." data-full="191.25">

import { text } from "./pieces.js";

const STEPS = 20; // as medfuse.overlay counts strength
const SVG = "http://www.w3.org/2000/svg";

/** What is chosen. */
export const strength = { opacity: 1, threshold: 0 };

/** The rules that draw it, for the page and for the viewer's shadow tree. */
export const sheet = new CSSStyleSheet();
document.adoptedStyleSheets.push(sheet);

/** Draw the maps as is chosen. */
function draw(full) {
  const { opacity, threshold } = strength;
  const weak = Array.from({ length: Math.round(STEPS * threshold) }, (_, step) => `[data-step="${step}"]`);
  let rules = `:root { --mf-opacity: ${opacity}; }`;
  if (weak.length) {
    const any = `:is(${weak.join()})`;
    rules += `.mf-marks ${any}, .mf-spans ${any} { display: none; }`;
    rules += `.mf-word${any} small { visibility: hidden; }`;
    rules += `.mf-word${any} > span { background: none !important; border-color: transparent !important; }`;
  }
  sheet.replaceSync(rules);
  filter(threshold * full);
  document.dispatchEvent(new Event("mf-strength"));
}

/** Let the spectrogram's map through from an opacity on, of 255. */
function filter(least) {
  let alpha = document.querySelector("#mf-strong feFuncA");
  if (!alpha) {
    const make = (name, parent) => parent.appendChild(document.createElementNS(SVG, name));
    const drawing = make("svg", document.body); // outside of what Gradio keeps as it made it
    drawing.setAttribute("aria-hidden", "true");
    Object.assign(drawing.style, { position: "absolute", width: 0, height: 0 });
    const own = make("filter", drawing);
    own.id = "mf-strong";
    own.setAttribute("color-interpolation-filters", "sRGB");
    alpha = make("feFuncA", make("feComponentTransfer", own));
    alpha.setAttribute("type", "discrete");
  }
  const values = Array.from({ length: 256 }, (_, value) => (value < least ? 0 : value / 255));
  alpha.setAttribute("tableValues", values.join(" "));
}

class Strength extends HTMLElement {
  static observedAttributes = ["data-shelf"]; // another one comes with another language

  connectedCallback() {
    this.root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    this.attributeChangedCallback();
  }

  attributeChangedCallback() {
    queueMicrotask(() => this.isConnected && this.build());
  }

  build() {
    const slider = (name, most, step) =>
      `<label>${text(this, name)} <input type="range" min="0" max="${most}" step="${step}" ` +
      `value="${Math.round(100 * strength[name])}" data-set="${name}"> <output></output></label>`;
    this.root.innerHTML =
      `<link rel="stylesheet" href="${new URL("viewer.css", import.meta.url)}">` +
      `<div class="mf-mapping">${slider("opacity", 100, 5)}${slider("threshold", 95, 5)}</div>`;
    this.root.querySelector("div").addEventListener("input", ({ target }) => {
      strength[target.dataset.set] = target.value / 100;
      this.apply();
    });
    this.apply();
  }

  apply() {
    for (const input of this.root.querySelectorAll("input")) {
      const share = `${input.value} %`;
      input.parentElement.querySelector("output").textContent = share;
      input.setAttribute("aria-valuetext", share);
    }
    draw(Number(this.dataset.full));
  }
}

customElements.define("mf-strength", Strength);
