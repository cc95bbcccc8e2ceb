// The page's own keys, which are pressed from anywhere on it: Alt and a letter.

/** Tell whether a key is Alt and a letter, alone, once, and not meant for something else. */
export function isKey(event, letter) {
  if (!event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return false;
  if (event.code !== `Key${letter}` || event.repeat || event.isComposing || event.defaultPrevented) return false;
  return !document.querySelector(":modal, [aria-modal=true]");
}
