"use strict";

// The theme's icons stand beside words or in buttons with a name: a screen reader need not name them again.
addEventListener("DOMContentLoaded", () => {
  for (const icon of document.querySelectorAll("svg:not([aria-label])")) icon.setAttribute("aria-hidden", "true");
  // Short names stay in one line: a browser would break them after a hyphen, or anywhere in a narrow column.
  for (const code of document.querySelectorAll(".md-typeset :not(pre) > code")) {
    if (code.textContent.length <= 26) code.style.whiteSpace = "nowrap";
  }
});

// Says which tables need less room to fit the page, and which do not fit even so, once the theme has put them into frames
// that scroll.
const markWideTables = () => {
  for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
    const frame = table.closest(".md-typeset__scrollwrap") ?? table;
    const isTooWide = () => frame.scrollWidth > frame.clientWidth + 1;
    table.removeAttribute("data-wide");
    table.removeAttribute("data-tight");
    if (isTooWide()) table.toggleAttribute("data-tight", true);
    const isWide = isTooWide();
    if (isWide) table.removeAttribute("data-tight");
    table.toggleAttribute("data-wide", isWide);
    if (isWide && frame !== table) {  // arrow keys scroll what has the focus
      frame.tabIndex = 0;
      frame.setAttribute("role", "group");
      frame.setAttribute("aria-label", "a table that scrolls sideways");
    }
  }
};
addEventListener("load", markWideTables);
addEventListener("resize", markWideTables);

// Search in pages that are opened as files. A browser starts no worker from a file, so a hidden frame runs its script.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      const load = (source) =>
        new Promise((done, failed) => {
          const script = inside.document.createElement("script");
          Object.assign(script, { src: source, onload: done, onerror: failed });
          inside.document.body.append(script);
        });
      inside.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(source)), Promise.resolve());
      inside.postMessage = (data) => this.answer(data);
      this.isReady = load(new URL(address, location.href).href);
    }

    answer(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    }

    postMessage(data) {
      this.isReady.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
