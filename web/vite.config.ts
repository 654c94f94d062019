import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  // The hub's CSP forbids inline code and data URLs for scripts and styles.
  build: { assetsInlineLimit: 0, target: "es2022", modulePreload: { polyfill: false } },
});
