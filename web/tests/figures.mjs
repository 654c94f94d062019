// The page's own figures, against their budgets: part of `make proof`, on a machine that does nothing else.
import { launch, opened, prompt, terminalText } from "./lib/page.mjs";
import { serve, until } from "./lib/serve.mjs";

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
await browser.close();
await server.stop();
process.exit(missed ? 1 : 0);
