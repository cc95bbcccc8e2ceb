// Gradio's own words, in the page's language. It says them once, in English (`language.js`), and
// not again when the page turns to another language.

const WORDS = JSON.parse(document.getElementById("mf-words").textContent);
const NAMING = ["aria-label", "title", "placeholder"];
const OURS = ".prose, textarea, script, style"; // what the server wrote, and what a reader types

const said = new WeakMap(); // of a text or an element: each place of words, as Gradio had it

/** Say a sentence of Gradio's, its number kept; null of one that is not known. */
function say(english, language) {
  const form = english.trim().replaceAll(/\s+/g, " ");
  const number = /\d+/.exec(form)?.[0];
  return WORDS[language][form.replace(number, "{number}")]?.replace("{number}", number) ?? null;
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

function translateAll(root) {
  const nodes = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = root; node !== null; node = nodes.nextNode()) {
    if (node.nodeType === Node.TEXT_NODE) translateText(node);
    else if (node.nodeType === Node.ELEMENT_NODE) translateNames(node);
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
