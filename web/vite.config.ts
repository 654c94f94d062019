import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  build: {
    // The pages' CSP forbids inline code and data URLs for scripts and styles.
    assetsInlineLimit: 0,
    target: "es2022",
    modulePreload: { polyfill: false },
    // The hub's page, and that of a workspace.
    rolldownOptions: { input: ["index.html", "workspace.html"] },
  },
});
