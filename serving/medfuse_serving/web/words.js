// Gradio's own words, in the page's language. It says them once, in English (`language.js`), and
// not again when the page turns to another language.

const WORDS = JSON.parse(document.getElementById("mf-words").textContent);
const NAMING = ["aria-label", "title", "placeholder"];
const OURS = ".prose, textarea, script, style"; // what the server wrote, and what a reader types

const said = new WeakMap(); // of a text or an element: each place of words, as Gradio had it

/** Make patterns of the forms that have values, of which a number is one of its own. */
const FORMS = Object.keys(WORDS.en).filter((form) => form.includes("{")).map((form) => {
  const escaped = form.replaceAll(/[.*+?^$()|[\]\\]/g, "\\$&");
  const value = (_, name) => `(?<${name}>${name === "number" ? "\\d+" : ".+"})`;
  return [form, new RegExp(`^${escaped.replaceAll(/\{(\w+)\}/g, value)}$`)];
});

/** Say a sentence of Gradio's, its values kept; null of one that is not known. */
function say(english, language) {
  const sentence = english.trim().replaceAll(/\s+/g, " ");
  for (const [form, pattern] of FORMS) {
    const values = pattern.exec(sentence)?.groups;
    if (values) return WORDS[language][form].replaceAll(/\{(\w+)\}/g, (_, name) => values[name]);
  }
  return WORDS[language][sentence] ?? null;
}

function translate(node, place, shown, write) {
  const known = said.get(node) ?? {};
  const english = known[place]?.written === shown ? known[place].english : shown;
  const written = say(english, document.documentElement.dataset.language ?? "en");
  if (written === null) return;
  said.set(node, { ...known, [place]: { english, written } });
  if (written !== shown) write(written);
}

function translateText(text) {
  if (text.parentElement?.closest(OURS)) return;
  translate(text, "text", text.data, (words) => {
    text.data = words;
  });
}

function translateNames(element, names = NAMING) {
  for (const name of names) {
    const shown = element.getAttribute(name);
    if (shown !== null) translate(element, name, shown, (w) => element.setAttribute(name, w));
  }
}

let uploads = 0;

/** Name an upload by what it takes, which its label says, and by what it does. */
function nameUpload(button) {
  const label = button.closest(".block")?.querySelector("[data-testid=block-label]");
  if (!label || button.hasAttribute("aria-labelledby")) return;
  uploads += 1;
  label.id ||= `mf-label-${uploads}`;
  button.id ||= `mf-upload-${uploads}`;
  button.setAttribute("aria-labelledby", `${label.id} ${button.id}`);
}

function translateAll(root) {
  const nodes = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = root; node !== null; node = nodes.nextNode()) {
    if (node.nodeType === Node.TEXT_NODE) translateText(node);
    else if (node.nodeType === Node.ELEMENT_NODE) {
      translateNames(node);
      if (node.matches("button.upload-container")) nameUpload(node);
    }
  }
}

new MutationObserver((changes) => {
  for (const { type, target, attributeName, addedNodes } of changes) {
    if (target === document.documentElement && attributeName === "data-language") {
      translateAll(document.body);
    } else if (type === "characterData") translateText(target);
    else if (type === "attributes") translateNames(target, [attributeName]);
    else for (const node of addedNodes) translateAll(node);
  }
}).observe(document.documentElement, {
  attributeFilter: ["data-language", ...NAMING],
  attributes: true,
  characterData: true,
  childList: true,
  subtree: true,
});
translateAll(document.body);
