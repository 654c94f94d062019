// The page's own figures, against their budgets: part of `make proof`, on a machine that does nothing else.
import { launch, opened, prompt, terminalText } from "../lib/page.mjs";
import { serve, until } from "../lib/serve.mjs";
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";

const lines = Array.from({ length: 10_000 }, (_, n) => `const value${n} = compute(${n}, "text"); // line`);
const server = await serve({ "big.js": lines.join("\n"), "long.json": `["${"x".repeat(3 << 20)}"]` });
const browser = await launch();
const { page } = await opened(browser, "about:blank", { viewport: { width: 1280, height: 800 } });
let missed = 0;
const report = (what, got, budget, unit) => {
  const good = got <= budget;
  if (!good) missed += 1;
  console.log(`${good ? "  " : "✗ "}${what}: ${Math.round(got * 10) / 10} ${unit}, budget ${budget}`);
};

let script = 0;
const network = await page.context().newCDPSession(page);
const urls = {};
await network.send("Network.enable");
network.on("Network.responseReceived", (event) => (urls[event.requestId] = event.response.url));
network.on("Network.loadingFinished", (event) => {
  if (urls[event.requestId]?.endsWith(".js")) script += event.encodedDataLength;
});
await page.goto(server.url);
await page.locator(".xterm-rows").first().waitFor();
const paint = await page.evaluate(() => performance.getEntriesByType("paint")[0].startTime);
report("first paint", paint, 300, "ms");
await page.getByRole("treeitem", { name: "big.js" }).click();
await page.locator(".cm-content span").first().waitFor();
report("script with terminal, editor and a language, compressed", script / 1024, 450, "KiB");

/** What a key costs until the page is laid out again. */
const typing = async (keys) => {
  await page.locator(".cm-content").click();
  return page.evaluate(async (keys) => {
    const times = [];
    for (let n = 0; n < keys; n += 1) {
      const start = performance.now();
      document.execCommand("insertText", false, "a");
      void document.querySelector(".cm-content").offsetHeight;
      times.push(performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return times.sort((a, b) => a - b)[Math.floor(keys * 0.99)];
  }, keys);
};
report("a key in 10,000 lines, p99", await typing(300), 16, "ms");
await page.getByRole("treeitem", { name: "long.json" }).click();
await page.getByRole("textbox", { name: /long\.json$/ }).waitFor();
report("a key in a line of 3 MB, p99", await typing(100), 50, "ms");

await prompt(page);
await page.evaluate(() => {
  let last = performance.now();
  window.worst = 0;
  const frame = (now) => {
    window.worst = Math.max(window.worst, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});
await page.keyboard.type("clear; head -c 75000000 /dev/urandom | base64; echo over-$((1+1))\n");
await until("100 MB", async () => (await terminalText(page)).includes("over-2"), 300_000);
report("the longest frame in 100 MB of output", await page.evaluate(() => window.worst), 100, "ms");
report(
  "the tab's heap then",
  (await page.evaluate(() => performance.memory.usedJSHeapSize)) / 1048576,
  300,
  "MiB",
);
await page.context().close();
await server.stop();

/** Somebody between a page and its server, who can be away. */
async function between(url) {
  const sockets = new Set();
  const state = { away: false };
  const listener = createServer((near) => {
    if (state.away) return near.destroy();
    const far = connect(Number(new URL(url).port), "127.0.0.1");
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => socket.destroy());
      socket.on("close", () => (sockets.delete(socket), near.destroy(), far.destroy()));
    }
    near.pipe(far).pipe(near);
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const part = () => {
    state.away = true;
    for (const socket of sockets) socket.destroy();
  };
  return { url: `http://127.0.0.1:${listener.address().port}`, part, state, listener };
}

// Whoever was away for longer than a connection is kept gets the screen: as after an hour, in which the
// terminal has said a lot.
const kept = await serve({}, { RECOVERY: "off" });
const middle = await between(kept.url);
const away = await opened(browser, middle.url);
await prompt(away.page);
await away.page.keyboard.type("seq -f 'before %g' 1 6000\n");
await until("before", async () => (await terminalText(away.page)).includes("before 6000"));
middle.part();
await away.page.getByText("no connection", { exact: false }).first().waitFor();
const there = await opened(browser, kept.url);
await prompt(there.page);
await there.page.keyboard.type(
  "clear; seq -f 'meanwhile %g: some output of an hour' 1 500000; echo end-$((1+1))\n",
);
await until("an hour's output", async () => (await terminalText(there.page)).includes("end-2"), 120_000);
await there.close();
middle.state.away = false;
const back = await away.page.evaluate(async () => {
  const start = performance.now();
  dispatchEvent(new Event("online"));
  for (;;) {
    const rows = document.querySelector(".screen.active .xterm-rows");
    if (rows.textContent.includes("end-2")) return performance.now() - start;
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
});
report("the screen of who was away for an hour", back, 200, "ms");
await away.close();
middle.listener.close();
await kept.stop();

// A tree of two hundred thousand files.
const many = await serve({ "a.txt": "x" });
mkdirSync(join(many.workspace, "0flat"));
execFileSync(
  "sh",
  [
    "-c",
    "cd 0flat && seq -f 'f%06g.txt' 1 100000 | xargs touch && cd .. && seq -f 'd%03g' 1 100 | while read d; do mkdir $d; (cd $d && seq -f '%04g' 1 1000 | xargs touch); done",
  ],
  { cwd: many.workspace },
);
const tree = await opened(browser, "about:blank");
await tree.page.addInitScript(() => {
  let last = performance.now();
  window.worst = 0;
  const frame = (now) => {
    window.worst = Math.max(window.worst, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});
await tree.page.goto(many.url);
await tree.page.getByRole("treeitem", { name: "0flat" }).click();
await tree.page.getByRole("treeitem", { name: "f000002.txt" }).waitFor();
await tree.page.evaluate(() => (window.worst = 0));
await tree.page.getByRole("tree").focus();
for (let n = 0; n < 20; n += 1) await tree.page.keyboard.press(n % 2 ? "Home" : "End");
report(
  "the longest frame in a tree of 200,000 files",
  await tree.page.evaluate(() => window.worst),
  100,
  "ms",
);
await many.stop();
await browser.close();
process.exit(missed ? 1 : 0);
