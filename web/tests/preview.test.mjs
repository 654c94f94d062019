// Previews in Chromium: real applications, and hostile ones.
import assert from "node:assert/strict";
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer as http } from "node:http";
import { createServer as net } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, opened, prompt, shots, terminalText } from "./lib/page.mjs";
import { serve, until } from "./lib/serve.mjs";

const EXPRESS = `
const express = require("express");
const app = express();
app.get("/", (request, response) => response.redirect("/home"));
app.get("/home", (request, response) => {
  response.set("X-Frame-Options", "DENY");
  response.set("Strict-Transport-Security", "max-age=31536000; includeSubDomains");
  response.set("Clear-Site-Data", '"*"');
  response.cookie("session", "mine", { httpOnly: true, domain: "localhost" });
  response.type("html").send(\`<!doctype html><title>app</title><link rel="stylesheet" href="/static/style.css">
    <h1>Hello from the app</h1><p id=out>…</p><p id=more>…</p><script src="/static/app.js"></script>\`);
});
app.get("/static/style.css", (request, response) => response.type("css").send("h1{color:rgb(1,2,3)}"));
app.get("/static/app.js", (request, response) => response.type("js").send(\`
  const out = document.getElementById("out");
  const workspace = document.referrer ? new URL(document.referrer).origin : "";
  const tries = {
    parent: () => String(parent.document.title),
    top: () => { if (top === self) throw 0; top.location.href = "about:blank"; return top.document.title; },
    api: () => fetch("WORKSPACE/api/files/secret.txt").then((r) => r.text()),
    socket: () => new Promise((ok, no) => {
      const s = new WebSocket("WORKSPACE/ws".replace("http", "ws"));
      s.onopen = ok; s.onerror = no;
    }),
    storage: () => { localStorage.setItem("a", "b"); return localStorage.getItem("a"); },
    session: () => fetch("/whoami").then((r) => r.text()).then((t) => { if (t !== "mine") throw t; }),
    events: () => new Promise((ok, no) => {
      const e = new EventSource("/events"); e.onmessage = () => { e.close(); ok(); }; e.onerror = no;
    }),
  };
  (async () => {
    const got = [];
    for (const [name, attempt] of Object.entries(tries)) {
      try { await attempt(); got.push(name + ":reached"); } catch { got.push(name + ":refused"); }
    }
    out.textContent = got.join(" ");
  })();\`.replaceAll("WORKSPACE", process.env.WORKSPACE_URL)));
app.get("/whoami", (request, response) => {
  const cookies = request.headers.cookie ?? "";
  response.send(/legwork/.test(cookies) ? "leaked" : (/session=(\\w+)/.exec(cookies)?.[1] ?? "nobody"));
});
app.get("/events", (request, response) => {
  response.type("text/event-stream").write("data: 1\\n\\n");
});
app.get("/headers", (request, response) => response.json(request.headers));
app.listen(Number(process.argv[2]), "127.0.0.1");
`;

/** An application that knows nothing of paths below which it is. */
const ABSOLUTE = `
const http = require("node:http");
const pages = {
  "/": ["text/html", \`<!doctype html><html><head><title>absolute</title>
    <link rel="stylesheet" href="/style.css"></head><body style="--x:url(/pic.svg)">
    <h1>Absolute</h1><img src="/pic.svg" alt="" width="8"><p id="out"></p><a href="/next">next</a>
    <form action="/form" method="post"><button>send</button></form>
    <script src="/app.js"></script></body></html>\`],
  "/next": ["text/html", "<!doctype html><h1>Next</h1><a href=/>back</a>"],
  "/style.css": ["text/css", "@import '/more.css'; h1{background:url(/pic.svg)}"],
  "/more.css": ["text/css", "h1{color:rgb(4,5,6)}"],
  "/pic.svg": ["image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'],
  "/data": ["text/plain", "data"],
  "/late.js": ["text/javascript", "window.late()"],
  "/app.js": ["text/javascript", \`
    const loaded = (element, name, address) => new Promise((ok, no) => {
      element.onload = ok; element.onerror = no; element[name] = address; document.body.append(element);
    });
    const tries = {
      picture: () => new Promise((ok, no) => { const i = document.images[0]; i.complete && i.naturalWidth ? ok() : (i.onload = ok, i.onerror = no); }),
      fetch: () => fetch("/data").then((r) => r.text()).then((t) => { if (t !== "data") throw t; }),
      request: () => new Promise((ok, no) => {
        const r = new XMLHttpRequest(); r.open("GET", "/data"); r.onload = () => r.responseText === "data" ? ok() : no(); r.onerror = no; r.send();
      }),
      element: () => loaded(new Image(), "src", "/pic.svg"),
      script: () => new Promise((ok, no) => { window.late = ok; loaded(document.createElement("script"), "src", "/late.js").catch(no); }),
      events: () => new Promise((ok, no) => { const e = new EventSource("/events"); e.onmessage = () => { e.close(); ok(); }; e.onerror = no; }),
      storage: () => { localStorage.setItem("a", "b"); if (localStorage.getItem("a") !== "b") throw 0; },
      parent: () => { if (parent.document.title) throw 0; },
      worker: () => worked(location.href.replace(/~([0-9a-f]+).*/, "~$1/data"), "data"),
      other: () => worked(location.href.replace(new RegExp("/[0-9]*~([0-9a-f]+).*"), "/OTHER~$1/"), "another's"),
    };
    // No script of ours is in a worker.
    const worked = (address, want) => new Promise((ok, no) => {
      const code = "fetch('" + address + "').then((r) => r.text()).then((t) => postMessage(t), () => postMessage('refused'))";
      const worker = new Worker(URL.createObjectURL(new Blob([code])));
      worker.onmessage = (said) => said.data === want ? ok() : no(said.data);
      worker.onerror = no;
    });
    (async () => {
      const got = [];
      for (const [name, attempt] of Object.entries(tries)) {
        try { await attempt(); got.push(name); } catch (e) { got.push(name + " failed"); }
      }
      document.getElementById("out").textContent = got.join(" ");
    })();\`.replace("OTHER", process.argv[3])],
};
http.createServer((request, response) => {
  if (request.url === "/events") return response.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\\n\\n");
  if (request.url === "/form") return response.writeHead(302, { location: "/next" }).end();
  const [type, text] = pages[request.url] ?? ["text/plain", "none"];
  response.writeHead(pages[request.url] ? 200 : 404, { "content-type": type, "content-length": Buffer.byteLength(text) }).end(text);
}).listen(Number(process.argv[2]), "127.0.0.1");
`;

const REACT = {
  "index.html": '<!doctype html><div id="root"></div><script type="module" src="/src/main.jsx"></script>',
  "src/main.jsx":
    'import { createRoot } from "react-dom/client";\nimport App from "./App.jsx";\ncreateRoot(document.getElementById("root")).render(<App />);\n',
  "src/App.jsx":
    'import { useState } from "react";\nexport default function App() {\n  const [n, set] = useState(0);\n  return <button onClick={() => set(n + 1)}>clicked {n} first</button>;\n}\n',
  "vite.config.mjs":
    'import react from "@vitejs/plugin-react";\nexport default { plugins: [react()], cacheDir: ".cache", server: { fs: { strict: false } } };\n',
  "server.cjs": EXPRESS,
  "secret.txt": "secret",
};

const free = () =>
  new Promise((resolve) => {
    const listener = net().listen(0, "127.0.0.1", () => {
      const { port } = listener.address();
      listener.close(() => resolve(port));
    });
  });

let server, browser;
before(async () => {
  const usual = await free();
  server = await serve(REACT, { USER_PORT: String(usual) });
  symlinkSync(join(import.meta.dirname, "../node_modules"), join(server.workspace, "node_modules"));
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("an Express application with absolute paths and cookies works, and reaches nothing of ours", async () => {
  // To Chromium this name and those of its previews are of one site, so frames have their storage.
  const own = server.url.replace("127.0.0.1", "legwork.localhost");
  const { page, close } = await opened(browser, own);
  const port = await free();
  await prompt(page);
  await page.keyboard.type(`WORKSPACE_URL=${own} node server.cjs ${port} &\n`);
  const notice = page.locator(".notice").filter({ hasText: `Port ${port} is listening.` });
  await notice.waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-port.png") });
  await notice.getByRole("button", { name: "Preview" }).click();
  const frame = page.frameLocator("iframe");
  await frame.getByText("Hello from the app").waitFor();
  const colour = await frame.locator("h1").evaluate((h1) => getComputedStyle(h1).color);
  assert.equal(colour, "rgb(1, 2, 3)");
  const want =
    "parent:refused top:refused api:refused socket:refused storage:reached session:reached events:reached";
  await until("its attempts", async () => (await frame.locator("#out").textContent()) === want).catch(
    async () => assert.equal(await frame.locator("#out").textContent(), want),
  );
  if (shots) await page.screenshot({ path: join(shots, "workspace-preview.png") });
  // In a tab of its own, too; and by hand, without any page of ours.
  const [tab] = await Promise.all([
    page.context().waitForEvent("page"),
    page.locator(".preview").getByRole("button", { name: "Open", exact: true }).click(),
  ]);
  await tab.getByText("Hello from the app").waitFor();
  assert.equal(new URL(tab.url()).host, `${port}.legwork.localhost:${new URL(server.url).port}`);
  const said = await tab.evaluate(() => fetch("/headers").then((answer) => answer.json()));
  assert.equal(said.host, `localhost:${port}`);
  assert.ok(!JSON.stringify(said).includes("legwork-preview"), JSON.stringify(said));
  // Its name is the application's alone.
  const api = await tab.evaluate(() => fetch("/api/info").then((answer) => answer.text()));
  assert.match(api, /Cannot GET/);
  await page.locator(".screen.active").click();
  await page.keyboard.type("kill %1\n");
  await close();
});

test("where ports have no names, absolute addresses work below a path", async () => {
  const away = await launch(["ide.example"]);
  const [own, port] = [await free(), await free()];
  const behind = await serve(
    { "absolute.cjs": ABSOLUTE },
    { ALLOWED_ORIGINS: `http://ide.example:${own}` },
    (command) => [...command.slice(0, -1), String(own)],
  );
  const others = http((_, response) => response.end("another's"));
  const other = await new Promise((resolve) => {
    others.listen(0, "127.0.0.1", () => resolve(others.address().port));
  });
  const { page, close } = await opened(away, `http://ide.example:${own}`);
  await prompt(page);
  await page.keyboard.type(`clear; node absolute.cjs ${port} ${other} &\n`);
  await page
    .locator(".notice")
    .filter({ hasText: `${port}` })
    .getByRole("button", { name: "Preview" })
    .click();
  const frame = page.frameLocator("iframe");
  const want = "picture fetch request element script events storage parent failed worker other failed";
  await until("its attempts", async () => (await frame.locator("#out").textContent()) === want).catch(
    async () => assert.equal(await frame.locator("#out").textContent(), want),
  );
  assert.equal(await frame.locator("h1").evaluate((h1) => getComputedStyle(h1).color), "rgb(4, 5, 6)");
  await frame.getByRole("link", { name: "next" }).click();
  await frame.getByRole("heading", { name: "Next" }).waitFor();
  await frame.getByRole("link", { name: "back" }).click();
  await frame.getByRole("button", { name: "send" }).click();
  await frame.getByRole("heading", { name: "Next" }).waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-by-path.png") });
  await close();
  await away.close();
  await behind.stop();
  others.close();
});

test("a React application by Vite is edited in the page and reloads hot, keeping its state", async () => {
  const { page, close } = await opened(browser, server.url);
  const port = await free();
  await prompt(page);
  await page.keyboard.type(`clear; node node_modules/vite/bin/vite.js --port ${port} --strictPort\n`);
  await until("vite", async () => (await terminalText(page)).includes("ready in"), 60_000);
  await page
    .locator(".notice")
    .filter({ hasText: `${port}` })
    .getByRole("button", { name: "Preview" })
    .click();
  const button = page.frameLocator("iframe").getByRole("button");
  await button.filter({ hasText: "clicked 0 first" }).waitFor({ timeout: 60_000 });
  await button.click();
  await button.filter({ hasText: "clicked 1 first" }).waitFor();
  const path = join(server.workspace, "src/App.jsx");
  writeFileSync(path, readFileSync(path, "utf8").replace("first", "second"));
  await button.filter({ hasText: "clicked 1 second" }).waitFor();
  await page.locator(".screen.active").click();
  await page.keyboard.press("Control+c");
  await close();
});

test("who has no key sees no preview, and a viewer only looks", async () => {
  const port = await free();
  const guarded = await serve(
    { "server.cjs": EXPRESS },
    { LEGWORK_WORKSPACE_TOKEN: "work", LEGWORK_WORKSPACE_VIEW_TOKEN: "look", USER_PORT: String(port) },
  );
  symlinkSync(join(import.meta.dirname, "../node_modules"), join(guarded.workspace, "node_modules"));
  const work = await opened(browser, `${guarded.url}/#token=work`);
  await prompt(work.page);
  await work.page.keyboard.type(`WORKSPACE_URL=${guarded.url} node server.cjs ${port} &\n`);
  await work.page.locator(".notice").getByRole("button", { name: "Preview" }).click();
  await work.page.frameLocator("iframe").getByText("Hello from the app").waitFor();
  const address = `http://${port}.localhost:${new URL(guarded.url).port}/`;
  const nobody = await opened(browser, address);
  await nobody.page.getByText("for those who work").waitFor();
  const look = await opened(browser, `${guarded.url}/#token=look`);
  await look.page.getByText("view only").waitFor();
  await look.page.getByRole("button", { name: "Preview", exact: true }).first().click();
  await look.page.frameLocator("iframe").getByText("Hello from the app").waitFor();
  await look.page.locator(".screen.active").click();
  await look.page.keyboard.type("x");
  await look.page.getByText("You only view this workspace").first().waitFor();
  assert.equal(await look.page.getByRole("button", { name: "New terminal" }).count(), 0);
  if (shots) await look.page.screenshot({ path: join(shots, "workspace-viewer.png") });
  for (const one of [work, nobody, look]) await one.close();
  await guarded.stop();
});
