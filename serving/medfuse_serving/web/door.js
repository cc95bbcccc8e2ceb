// The way out of the page: nothing of a study is left on the screen, or behind the button Back.

globalThis.medfuseDoor = {
  /** Take everything away and go elsewhere, which takes this page's place among those gone back to. */
  leave(address) {
    document.body?.replaceChildren();
    document.title = "medfuse";
    location.replace(address);
  },
};

{
  const ask = globalThis.fetch;
  // All that the page asks for, and Gradio too, comes through here. What was asked by a page that is
  // left gets no answer, or errors would be said on it.
  globalThis.fetch = async (...asked) => {
    const response = await ask(...asked);
    if (response.status !== 401 || new URL(response.url).origin !== location.origin) return response;
    medfuseDoor.leave("login?ended");
    return new Promise(() => {});
  };

  // A page that a browser kept whole, in spite of `Cache-Control`, asks the server again.
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    document.body?.replaceChildren();
    location.reload();
  });
}
