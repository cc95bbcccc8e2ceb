// The reader's impression: a group of native radio buttons for each question, or a number.
// A custom element without a build step: <mf-impression data-questions="[...]" data-form="..">. What
// was said is asked for as `said`; it is taken away when data-form changes, as for another study.

import { word } from "./pieces.js";

const STYLE = new URL("impression.css", import.meta.url);

function make(name, values = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

class Impression extends HTMLElement {
  static observedAttributes = ["data-questions", "data-form"];

  connectedCallback() {
    this.plan();
  }

  attributeChangedCallback() {
    this.plan();
  }

  /** Build once all attributes are there. */
  plan() {
    queueMicrotask(() => {
      const { form, questions } = this.dataset;
      if (!this.isConnected || (form === this.form && questions === this.asked)) return;
      if (form !== this.form) this.said = {};
      this.form = form;
      this.asked = questions;
      this.build();
    });
  }

  build() {
    this.root ??= this.attachShadow({ mode: "open" });
    const groups = JSON.parse(this.asked).map((question) => this.buildQuestion(question));
    this.root.replaceChildren(make("link", { rel: "stylesheet", href: STYLE }), ...groups);
  }

  buildQuestion({ target, name, options }) {
    if (!options.length) {
      const input = make("input", { type: "number", step: "any" });
      input.value = this.said[target] ?? "";
      input.addEventListener("input", () => this.say(target, input.value));
      return make("fieldset", {}, make("label", { class: "mf-value" }, `${name} `, input));
    }
    const buttons = options.map(([value, text]) => {
      const input = make("input", { type: "radio", name: target, value });
      input.checked = this.said[target] === value;
      input.addEventListener("change", () => this.say(target, value));
      return make("label", {}, input, ` ${text}`);
    });
    return make("fieldset", {}, make("legend", {}, name), ...buttons);
  }

  say(target, value) {
    this.said[target] = value;
  }
}

customElements.define("mf-impression", Impression);

// What a reader wrote and did not keep is not lost without a question.

const LEAVING = "#worklist-open, #clear-all"; // the buttons by which another study takes the place

const find = (selector) => document.querySelector(selector);

const PLACES = { impression: "#impression button", decision: "[id^=decide-]" }; // and what keeps it
const pressed = {}; // what stood in a place when it was to be kept last
const kept = {}; // and what was

/** Give what a reader has written in a place; nothing of one that is as it was laid out. */
function read(place) {
  const said = place === "impression" ? { ...find("mf-impression")?.said } : {};
  document.querySelectorAll(`#${place} textarea`).forEach((box, i) => {
    said[`box ${i}`] = box.value.trim();
  });
  return Object.values(said).some(Boolean) ? JSON.stringify(said) : null;
}

/** Tell whether something lies here that was written and not kept. */
function isUnkept() {
  return Object.keys(PLACES).some((place) => ![null, kept[place]].includes(read(place)));
}

document.addEventListener("click", ({ target }) => {
  for (const [place, keep] of Object.entries(PLACES)) {
    if (target.closest?.(keep)) pressed[place] = read(place);
  }
}, { capture: true });

let at = ""; // of the decision that was shown last

/** Take down what was kept, once that is shown. */
function look() {
  const decided = find("#decision-place [data-at]")?.dataset.at ?? at;
  if (decided !== at) kept.decision = pressed.decision;
  at = decided;
  if (find("#answer .mf-answer") && find("#kept-impression .mf-kept") && pressed.impression) {
    kept.impression = pressed.impression;
    pressed.impression = null;
  }
}

new MutationObserver(look).observe(document.documentElement, {
  attributeFilter: ["data-at"],
  attributes: true,
  childList: true,
  subtree: true,
});

document.addEventListener("click", (event) => {
  if (!event.target.closest(LEAVING) || !isUnkept() || confirm(word("unkept"))) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, { capture: true });

addEventListener("beforeunload", (event) => {
  if (isUnkept()) event.preventDefault(); // the browser asks in its own words
});
