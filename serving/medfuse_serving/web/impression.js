// The reader's impression: a group of native radio buttons for each question, or a number.
// A custom element without a build step: <mf-impression data-questions="[...]" data-form="..">. What
// was said is asked for as `said`; it is taken away when data-form changes, as for another study.

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
