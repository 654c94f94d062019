(() => {
  "use strict";
  // Addresses that scripts make are led back below the preview, as those in the page were.
  const prefix = "PREFIX";
  const here = location.protocol + "//" + location.host;
  const led = (given) => {
    if (given === null || given === undefined) return given;
    const text = String(given);
    for (const own of [here, here.replace(/^http/, "ws"), ""]) {
      const path = text.startsWith(own) ? text.slice(own.length) : "";
      if (!path.startsWith("/") || (own === "" && /^\/[/\\]/.test(path))) continue;
      return path === prefix || path.startsWith(prefix + "/") ? given : own + prefix + path;
    }
    return given;
  };
  const { fetch: ask, Request: Asked, WebSocket: Socket, EventSource: Events } = window;
  window.fetch = (what, how) =>
    what instanceof Asked ? ask(led(what.url) === what.url ? what : new Asked(led(what.url), what), how) : ask(led(what), how);
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url, ...more) {
    return open.call(this, method, led(url), ...more);
  };
  const constructed = (known) => new Proxy(known, { construct: (known, [url, ...more]) => new known(led(url), ...more) });
  window.WebSocket = constructed(Socket);
  if (Events) window.EventSource = constructed(Events);
  const beacon = navigator.sendBeacon?.bind(navigator);
  if (beacon) navigator.sendBeacon = (url, data) => beacon(led(url), data);
  for (const name of ["pushState", "replaceState"]) {
    const change = history[name].bind(history);
    // A page of no origin may not change its address everywhere: the application goes on.
    history[name] = (state, title, url) => {
      try {
        change(state, title, led(url));
      } catch {
        change(state, title);
      }
    };
  }
  for (const [kind, names] of [
    ["HTMLScriptElement", ["src"]],
    ["HTMLImageElement", ["src"]],
    ["HTMLMediaElement", ["src"]],
    ["HTMLSourceElement", ["src"]],
    ["HTMLIFrameElement", ["src"]],
    ["HTMLLinkElement", ["href"]],
    ["HTMLAnchorElement", ["href"]],
    ["HTMLFormElement", ["action"]],
  ]) {
    for (const name of names) {
      const known = Object.getOwnPropertyDescriptor(window[kind].prototype, name);
      const set = function (value) {
        known.set.call(this, led(value));
      };
      Object.defineProperty(window[kind].prototype, name, { ...known, set });
    }
  }
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    const isAddress = /^(href|src|action|formaction|poster|xlink:href)$/i.test(name);
    return setAttribute.call(this, name, isAddress ? led(value) : value);
  };
  // A page of no origin keeps nothing: what it keeps lasts as long as it is open.
  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      void window[name];
    } catch {
      const kept = new Map();
      const methods = {
        getItem: (key) => kept.get(String(key)) ?? null,
        setItem: (key, value) => void kept.set(String(key), String(value)),
        removeItem: (key) => void kept.delete(String(key)),
        clear: () => kept.clear(),
        key: (n) => [...kept.keys()][n] ?? null,
      };
      const store = new Proxy(methods, {
        get: (methods, key) => (key === "length" ? kept.size : (methods[key] ?? kept.get(key))),
        set: (methods, key, value) => (kept.set(String(key), String(value)), true),
      });
      Object.defineProperty(window, name, { value: store, configurable: true });
    }
  }
  try {
    void document.cookie;
  } catch {
    Object.defineProperty(document, "cookie", { get: () => "", set: () => {}, configurable: true });
  }
})();
