// Who is logged in, and the way out; nothing where no log-in is asked for.

import { text } from "./pieces.js";

/** What a page says of what it asks by itself, or it would keep its reader logged in for them. */
export const UNATTENDED = { "Medfuse-Unattended": "1" };

const LOOK_MS = 15000; // how often it is looked whether the reader is still logged in
const USES = ["keydown", "pointerdown", "wheel"];

class Reader extends HTMLElement {
  async connectedCallback() {
    this.root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    this.name ??= await this.ask();
    if (!this.name || !this.isConnected) return;
    this.show();
    this.stopLooking();
    this.look = () => this.lookAgain();
    this.looking = setInterval(this.look, LOOK_MS);
    document.addEventListener("visibilitychange", this.look);
    this.use = () => {
      this.used = true;
    };
    for (const kind of USES) document.addEventListener(kind, this.use, { capture: true, passive: true });
  }

  disconnectedCallback() {
    this.stopLooking();
  }

  stopLooking() {
    clearInterval(this.looking);
    document.removeEventListener("visibilitychange", this.look);
    for (const kind of USES) document.removeEventListener(kind, this.use, { capture: true });
  }

  async ask(headers = {}) {
    const response = await fetch(new URL("../reader", import.meta.url), { headers });
    return response.ok ? (await response.json()).name : null;
  }

  /** Leave where another has logged in meanwhile; where nobody is, the door does. */
  async lookAgain() {
    const headers = this.used ? {} : UNATTENDED; // a picture that is looked at asks for nothing
    this.used = false;
    try {
      const name = await this.ask(headers);
      if (name !== null && name !== this.name) medfuseDoor.leave("login?ended");
    } catch {
      // The server does not answer just now.
    }
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
