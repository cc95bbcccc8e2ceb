// What the page's elements share: how a piece is fetched from its shelf, and the words they show.

async function ask(shelf, number) {
  const response = await fetch(new URL(`../shelves/${shelf}/${number}`, import.meta.url));
  if (!response.ok) throw new Error((await response.json()).message);
  return response;
}

/** Fetch a piece as a URL that holds it, so that it is gone with the element that has the URL. */
export async function fetchURL(shelf, number) {
  const piece = await (await ask(shelf, number)).blob();
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(piece);
  });
}

/** Fetch a piece: its header, and the bytes after it. */
export async function fetchPiece(shelf, number) {
  const buffer = await (await ask(shelf, number)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { header, body: new Uint8Array(buffer, 4 + length) };
}

/** Give a word of the page's language. */
export function word(id) {
  const words = JSON.parse(document.querySelector("[data-words]")?.dataset.words ?? "{}");
  return words[id] ?? id;
}

/** Give the same escaped for HTML. */
export function text(element, id) {
  return word(id).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
