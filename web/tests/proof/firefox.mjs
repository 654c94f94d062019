// The main path in Firefox, by WebDriver BiDi: part of `make proof`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WebSocket } from "ws";
import { serve, until } from "../lib/serve.mjs";

const shots = process.env.LEGWORK_SCREENSHOTS;
/** Keys without a character, as WebDriver names them. */
const KEYS = { Enter: "\ue007", Control: "\ue009", Shift: "\ue008", Alt: "\ue00a", Escape: "\ue00c" };

/** Firefox, and what drives it. */
async function firefox() {
  const profile = mkdtempSync(join(tmpdir(), "legwork-firefox-"));
  const program = process.env.FIREFOX ?? "firefox-esr";
  const args = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"];
  const child = spawn(program, args, {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, HOME: profile },
  });
  const address = await new Promise((resolve, reject) => {
    let said = "";
    child.stderr.on("data", (data) => {
      const found = (said += data).match(/BiDi listening on (ws:\S+)/);
      if (found) resolve(found[1]);
    });
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`Firefox ended: ${said}`)));
  });
  const socket = new WebSocket(`${address}/session`);
  await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
  const waiting = new Map();
  const logged = [];
  let count = 0;
  socket.on("message", (data) => {
    const said = JSON.parse(data);
    if (said.method === "log.entryAdded" && said.params.level === "error") logged.push(said.params.text);
    waiting.get(said.id)?.(said);
  });
  const ask = async (method, params = {}) => {
    const id = ++count;
    const said = await new Promise((resolve) => {
      waiting.set(id, resolve);
      socket.send(JSON.stringify({ id, method, params }));
    });
    waiting.delete(id);
    if (said.type === "error") throw new Error(`${method}: ${said.error}: ${said.message}`);
    return said.result;
  };
  await ask("session.new", { capabilities: {} });
  await ask("session.subscribe", { events: ["log.entryAdded"] });
  const { contexts } = await ask("browsingContext.getTree", {});
  const context = contexts[0].context;
  const run = async (expression, where = context) => {
    const said = await ask("script.evaluate", { expression, target: { context: where }, awaitPromise: true });
    if (said.type === "exception") throw new Error(`${expression}: ${said.exceptionDetails.text}`);
    return said.result.value;
  };
  const keys = (actions) =>
    ask("input.performActions", { context, actions: [{ type: "key", id: "keys", actions }] });
  const page = {
    ask,
    run,
    logged,
    context,
    open: (url) => ask("browsingContext.navigate", { context, url, wait: "complete" }),
    type: (text) =>
      keys(
        [...text.replaceAll("\n", KEYS.Enter)].flatMap((value) => [
          { type: "keyDown", value },
          { type: "keyUp", value },
        ]),
      ),
    press: (...held) => {
      const values = held.map((key) => KEYS[key] ?? key);
      return keys([
        ...values.map((value) => ({ type: "keyDown", value })),
        ...values.toReversed().map((value) => ({ type: "keyUp", value })),
      ]);
    },
    click: async (find) => {
      const [x, y] = JSON.parse(
        await run(
          `JSON.stringify((() => { const b = (${find}).getBoundingClientRect(); return [Math.round(b.x + b.width / 2), Math.round(b.y + b.height / 2)]; })())`,
        ),
      );
      const actions = [
        { type: "pointerMove", x, y },
        { type: "pointerDown", button: 0 },
        { type: "pointerUp", button: 0 },
      ];
      await ask("input.performActions", { context, actions: [{ type: "pointer", id: "mouse", actions }] });
    },
    until: (what, expression, where) => until(what, () => run(`Boolean(${expression})`, where), 60_000),
    shot: async (name) => {
      if (!shots) return;
      const { data } = await ask("browsingContext.captureScreenshot", { context });
      writeFileSync(join(shots, name), Buffer.from(data, "base64"));
    },
    close: async () => {
      await ask("session.end").catch(() => undefined);
      child.removeAllListeners("exit");
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill();
      await ended;
      rmSync(profile, { recursive: true, force: true });
    },
  };
  return page;
}

const APPLICATION = `
require("node:http").createServer((request, response) => {
  response.setHeader("content-type", "text/html");
  if (request.url === "/") response.setHeader("set-cookie", "mine=1; Path=/");
  response.end(request.url === "/who" ? String(request.headers.cookie) : "<!doctype html><h1>application</h1><a href=/who>who</a>");
}).listen(Number(process.argv[2]), "127.0.0.1");`;

const port = 5000 + (process.pid % 4000);
const server = await serve({ "a.js": "const a = 1;\n", "app.cjs": APPLICATION }, { USER_PORT: String(port) });
const page = await firefox();
const text = `[...document.querySelectorAll(".screen.active .xterm-rows > div")].map((row) => row.textContent).join("\\n")`;
try {
  await page.open(server.url);
  const item = (name) =>
    `[...document.querySelectorAll("[role=treeitem]")].find((one) => one.textContent.includes("${name}"))`;
  await page.until("the tree", item("a.js"));
  await page.click(item("a.js"));
  await page.until("the editor", `document.querySelector(".cm-content")?.textContent.includes("const a")`);
  await page.click(`document.querySelector(".cm-content")`);
  await page.press("Control", "a");
  await page.type("const a = 2;");
  await page.press("Control", "s");
  await until("the save", () =>
    readFileSync(join(server.workspace, "a.js"), "utf8").startsWith("const a = 2;"),
  );
  console.log("  a file is opened, edited and saved");
  await page.click(`document.querySelector(".screen.active")`);
  await page.type("echo said-$((1+1)) | tee said; printf '\\033[31mred\\033[0m\\n'\n");
  await page.until("the terminal", `(${text}).includes("said-2")`);
  await until("the file", () => existsSync(join(server.workspace, "said")));
  await page.open(server.url);
  await page.until("the screen again", `(${text}).includes("said-2")`);
  console.log("  a terminal is typed into, and shows its screen again after a reload");
  await page.click(`document.querySelector(".screen.active")`);
  await page.type(`node app.cjs ${port} &\n`);
  const button = `[...document.querySelectorAll(".notice button")].find((one) => one.textContent === "Preview")`;
  await page.until("the notice", button);
  // By its own click: notices move while others come and go.
  await page.run(`${button}.click()`);
  const frame = await until("the frame", async () => {
    const { contexts } = await page.ask("browsingContext.getTree", { root: page.context });
    const found = contexts[0].children?.find((child) => child.url.includes(`${port}.localhost`));
    return found?.context;
  });
  await page.until("the application", `document.querySelector("h1")?.textContent === "application"`, frame);
  await page.run(`document.querySelector("a").click()`, frame);
  await page.until("its cookie", `document.body.textContent.includes("mine=1")`, frame);
  console.log("  an application is previewed by name, with its cookie");
  await page.shot("workspace-firefox.png");
  await page.press("Control", "Shift", "k");
  await page.until("the palette", `document.querySelector(".palette input")`);
  await page.press("Escape");
  assert.deepEqual(page.logged, [], "Firefox complains of nothing");
} finally {
  await page.close();
  await server.stop();
}
