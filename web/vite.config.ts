import { gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const OF_THE_WORKSPACE = /src\/workspace|@codemirror|@lezer|@xterm/;

/** Beside each script and style its compressed form: so it is made once, and not for each who asks. */
const compressed: Plugin = {
  name: "compressed",
  enforce: "post",
  generateBundle: {
    // After whoever still writes into the scripts.
    order: "post",
    handler(_, bundle) {
      for (const [fileName, file] of Object.entries(bundle)) {
        if (!/\.(js|css|svg)$/.test(fileName)) continue;
        const source = gzipSync(file.type === "chunk" ? file.code : file.source, { level: 9 });
        this.emitFile({ type: "asset", fileName: `${fileName}.gz`, source });
      }
    },
  },
};

export default defineConfig({
  plugins: [svelte(), compressed],
  build: {
    // The pages' CSP forbids inline code and data URLs for scripts and styles.
    assetsInlineLimit: 0,
    target: "es2022",
    modulePreload: { polyfill: false },
    // The hub's page, and that of a workspace.
    rolldownOptions: {
      input: ["index.html", "workspace.html"],
      output: {
        // What the workspace's page alone has is apart: the hub does not carry it.
        entryFileNames: (chunk) => `${chunk.name === "workspace" ? "workspace" : "assets"}/[name]-[hash].js`,
        chunkFileNames: (chunk) =>
          `${chunk.moduleIds.some((id) => OF_THE_WORKSPACE.test(id)) ? "workspace" : "assets"}/[name]-[hash].js`,
        assetFileNames: (asset) =>
          `${asset.names.some((name) => /workspace|emulator|code/.test(name)) ? "workspace" : "assets"}/[name]-[hash][extname]`,
      },
    },
  },
});
