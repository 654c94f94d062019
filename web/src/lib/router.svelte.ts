/** Which page: every one has an address. */

class Router {
  path = $state(location.pathname);

  constructor() {
    addEventListener("popstate", () => (this.path = location.pathname));
    // Links within the page don't load it again.
    addEventListener("click", (event) => {
      const link = (event.target as Element).closest?.("a");
      if (!link || link.origin !== location.origin || event.ctrlKey || event.metaKey || event.shiftKey)
        return;
      event.preventDefault();
      this.go(link.pathname);
    });
  }

  go(path: string): void {
    if (path !== this.path) history.pushState(null, "", path);
    this.path = path;
    scrollTo(0, 0);
    document.querySelector<HTMLElement>("main")?.focus();
  }
}

export const router = new Router();
