// What comes to the page is told to those who do not see it come: an element with `data-told` is
// said once in its place, politely, and the focus goes to its heading, or to that of the place that
// `data-leads-to` names, unless the reader has gone on. Where it would be lost, it is kept.
// Gradio's own states are not said, and its errors stand in a place of our own.

import { word } from "./pieces.js";

const KEPT_MS = 10_000; // how long what was said stays in the region

const told = new Map(); // by place, what was last said of it
let begun = null; // the button that was pressed last
let last = null; // what had the focus last
let lastPlace = null; // and in which place of `NEXT`
let explaining = false;
let refused = ""; // why, of what was not taken last
let study = ""; // what it is called

function make(name, values = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Beside Gradio's own element, in which it would put back what it had made.
const region = make("div", { id: "mf-told", class: "mf-spoken", role: "status" });
const errors = make("div", { id: "mf-errors", role: "alert" });
document.body.append(region, errors);

/** Say words politely. */
function tell(words) {
  const said = make("p", {}, words);
  region.append(said);
  setTimeout(() => said.remove(), KEPT_MS);
}

// What has come --------------------------------------------------------------------------------

/** Say what has come since the last look. */
function look() {
  const found = new Map();
  for (const element of document.querySelectorAll("[data-told]")) {
    const place = element.closest("[id]")?.id;
    const words = element.dataset.told || element.textContent;
    found.set(place, words);
    if (told.get(place) === words) continue;
    tell(words);
    leadTo(element);
  }
  told.clear();
  for (const [place, words] of found) told.set(place, words);
  lookForStop();
  lookForRefusal();
  lookForAnother();
}

/** Bring up why something was not taken: it is said where it was given, which may be out of sight. */
function lookForRefusal() {
  const now = document.querySelector("#given-told .mf-problem")?.textContent ?? "";
  if (now && now !== refused) document.getElementById("given-told").scrollIntoView({ block: "nearest" });
  refused = now;
}

/** Take away what was said of one study's files once another is there. */
function lookForAnother() {
  const now = document.querySelector("#which .mf-open b")?.textContent ?? "";
  if (study && now !== study) errors.replaceChildren();
  study = now;
}

/** Say that an explanation has ended without one. */
function lookForStop() {
  const place = document.getElementById("explanation");
  const now = Boolean(place?.querySelector(".mf-progress"));
  if (explaining && !now && !place?.querySelector("[data-told], .mf-problem")) tell(word("stopped"));
  explaining = now;
}

// The focus ------------------------------------------------------------------------------------

/** Tell whether the focus is nowhere, or on what goes. */
function isLost(at) {
  return at === null || at === document.body || !at.checkVisibility();
}

/** Bring the focus to what has come, unless the reader has gone on to something else. */
function leadTo(element) {
  const at = document.activeElement;
  if (!isLost(at) && at !== begun) return;
  const place = element.closest(".mf-card") ?? document.getElementById(element.dataset.leadsTo);
  focusOn(place?.querySelector("h2"));
}

function focusOn(element) {
  if (!element) return;
  if (element.matches("h2")) element.tabIndex = -1;
  element.focus({ preventScroll: true }); // who looks at something else keeps it in view
}

const NEXT = { // where the focus goes when what has it goes with what it ends or takes away
  stop: "#explain button.primary",
  "clear-voice": "#voice h2",
  "leave-out": "#image h2",
  "stop-writing": "#note-text textarea",
  "stop-exploring": "#reach-ask",
  "clear-prior": "#image h2",
  image: "#image h2",
  prior: "#image h2",
};

/** Bring the focus on from where it would be lost. */
function leadOn() {
  if (lastPlace && isLost(document.activeElement) && !last.checkVisibility()) {
    focusOn(document.querySelector(NEXT[lastPlace]));
    lastPlace = null;
  }
}

document.addEventListener("click", ({ target, isTrusted }) => {
  if (isTrusted) begun = target.closest?.("button") ?? null; // and not pressed by a script
}, true);
document.addEventListener("focusin", ({ target }) => {
  last = target;
  lastPlace = target.closest?.(Object.keys(NEXT).map((id) => `#${id}`).join())?.id;
});

// Gradio's own ---------------------------------------------------------------------------------

/** Keep Gradio's states ("Complete", a place in its queue) from being said. */
function silence(root) {
  for (const status of root.querySelectorAll(".sr-only[role=status]")) {
    status.removeAttribute("role");
    status.removeAttribute("aria-live");
    status.setAttribute("aria-hidden", "true");
  }
}

/** Show an error of Gradio's, whose own place has a button within a button and goes by itself. */
function takeError(toast) {
  const words = toast.textContent;
  for (const same of [...errors.children]) if (same.firstChild.textContent === words) same.remove();
  const close = make("button", { type: "button", "aria-label": "Close" }, "\u00d7");
  const error = make("div", { class: "mf-problem" }, make("p", {}, words), close);
  close.addEventListener("click", () => error.remove());
  errors.append(error);
}

// ----------------------------------------------------------------------------------------------

new MutationObserver((changes) => {
  if (changes.every(({ target }) => region.contains(target))) return;
  for (const { addedNodes } of changes) {
    for (const node of addedNodes) {
      if (node.nodeType !== Node.ELEMENT_NODE) continue;
      silence(node.parentElement ?? node);
      for (const toast of node.querySelectorAll("[data-testid=toast-text]")) takeError(toast);
    }
  }
  look();
  requestAnimationFrame(leadOn); // once what has gone is no more seen
}).observe(document.documentElement, {
  attributeFilter: ["data-told"],
  attributes: true,
  childList: true,
  subtree: true,
});
silence(document);
