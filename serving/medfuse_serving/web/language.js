// The reader's language: kept in this browser, and told to Gradio, whose own words follow the
// browser's, before it starts.

globalThis.medfuseLanguage = {
  tags: { en: "en", zh: "zh-Hans" },

  /** Keep what was chosen. Values as the page's handler takes them: the language is the second. */
  keep(values) {
    this.use(values[1]);
    localStorage.setItem("medfuse-language", values[1]);
    return values;
  },

  /** Put what is kept in its place. */
  restore(values) {
    return values.with(1, this.kept() ?? values[1]);
  },

  kept() {
    const code = localStorage.getItem("medfuse-language");
    return code in this.tags ? code : null;
  },

  use(code) {
    document.documentElement.lang = this.tags[code];
  },
};

{
  const code = medfuseLanguage.kept();
  if (code !== null) {
    medfuseLanguage.use(code);
    const browser = { en: "en", zh: "zh-CN" }[code];
    Object.defineProperty(navigator, "language", { get: () => browser });
    Object.defineProperty(navigator, "languages", { get: () => [browser] });
  }
}
