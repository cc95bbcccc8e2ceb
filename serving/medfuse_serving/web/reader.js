// Who is logged in, and the way out; nothing where no log-in is asked for.

import { text } from "./pieces.js";

class Reader extends HTMLElement {
  async connectedCallback() {
    this.root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    const response = await fetch(new URL("../reader", import.meta.url));
    if (!response.ok) return;
    this.name = (await response.json()).name;
    this.show();
  }

  static observedAttributes = ["lang"];

  attributeChangedCallback() {
    this.show();
  }

  show() {
    if (!this.name) return;
    const style = new URL("viewer.css", import.meta.url);
    this.root.innerHTML =
      `<link rel="stylesheet" href="${style}"><form class="mf-reader" method="post">` +
      `<span></span> <button>${text(this, "log-out")}</button></form>`;
    this.root.querySelector("span").textContent = this.name;
    this.root.querySelector("form").addEventListener("submit", (event) => this.logOut(event));
  }

  /** By a script, not by the form, which would leave this page behind the button Back. */
  async logOut(event) {
    event.preventDefault();
    try {
      await fetch(new URL("../logout", import.meta.url), { method: "POST" });
    } finally { // whoever pressed it may not wait and see
      medfuseDoor.leave("login");
    }
  }
}

customElements.define("mf-reader", Reader);
