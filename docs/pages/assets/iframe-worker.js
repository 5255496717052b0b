// Search for pages that are opened from a folder. Material's search is a worker, which browsers start only for pages
// from a server; there is a frame in its place, with what the search needs of a worker. (The `offline` plugin would load
// a script of this name from the network, and leaves that when there is one already: see mkdocs.yml.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.scope = frame.contentWindow;
      this.scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = frame.contentDocument.createElement("script");
      script.src = url;
      this.started = new Promise((resolve) => (script.onload = resolve));
      frame.contentDocument.head.append(script);
    }

    async postMessage(data) {
      await this.started;
      this.scope.dispatchEvent(new this.scope.MessageEvent("message", { data }));
    }
  };
}
