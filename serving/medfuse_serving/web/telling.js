// Gradio's errors, in a place of our own: its own has a button within a button and goes by itself.

function make(name, values = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Beside Gradio's own element, in which it would put back what it had made.
const errors = make("div", { id: "mf-errors", role: "alert" });
document.body.append(errors);

/** Show an error until it is closed. */
function takeError(toast) {
  const words = toast.textContent;
  for (const same of [...errors.children]) if (same.firstChild.textContent === words) same.remove();
  const close = make("button", { type: "button", "aria-label": "Close" }, "\u00d7");
  const error = make("div", { class: "mf-problem" }, make("p", {}, words), close);
  close.addEventListener("click", () => error.remove());
  errors.append(error);
}

new MutationObserver((changes) => {
  for (const { addedNodes } of changes) {
    for (const node of addedNodes) {
      if (node.nodeType !== Node.ELEMENT_NODE) continue;
      for (const toast of node.querySelectorAll("[data-testid=toast-text]")) takeError(toast);
    }
  }
}).observe(document.body, { childList: true, subtree: true });
