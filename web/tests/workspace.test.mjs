// The workspace's page in Chromium, against the real binary.
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";
import { serve, sleep, until } from "./lib/serve.mjs";

const shots = process.env.LEGWORK_SCREENSHOTS;
let server, app, browser;

before(async () => {
  app = createServer((request, response) => {
    response.setHeader("Content-Type", "text/html");
    // What a hostile application would try from its frame.
    response.end(`<!doctype html><title>app</title><h1>Hello from the app</h1><p id=out>…</p><script>
      const out = document.getElementById("out");
      const tries = {
        parent: () => String(parent.document.title),
        storage: () => String(localStorage.length),
        api: () => fetch("/api/files/index.js").then((r) => r.text()),
      };
      (async () => {
        const got = [];
        for (const [name, attempt] of Object.entries(tries)) {
          try { await attempt(); got.push(name + ":reached"); } catch { got.push(name + ":refused"); }
        }
        out.textContent = got.join(" ");
      })();
    </script>`);
  });
  await new Promise((resolve) => app.listen(0, "127.0.0.1", resolve));
  server = await serve(
    { "index.js": "console.log(1)\n", "src/deep/a.txt": "a", "bin.dat": "\u0000x" },
    { USER_PORT: String(app.address().port) },
  );
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
  });
});

after(async () => {
  await browser?.close();
  app?.close();
  await server?.stop();
});

/** Anything the browser complains about fails the test. */
async function open(options = {}, url = server.url) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.goto(url);
  return { page, complaints, close: () => context.close() };
}

const terminalText = (page) =>
  page.evaluate(() => document.querySelector(".screen.active .xterm-rows")?.innerText ?? "");

test("a file is found, edited, saved, and a change elsewhere is not overwritten", async () => {
  const { page, complaints, close } = await open();
  await page.getByRole("treeitem", { name: "index.js" }).click();
  const editor = page.getByRole("textbox", { name: /index\.js$/ });
  await editor.fill("console.log(2)\n");
  await page.keyboard.press("Control+s");
  const path = join(server.workspace, "index.js");
  await until("the save", () => readFileSync(path, "utf8") === "console.log(2)\n");
  // Somebody else changes it while it is being edited.
  await editor.fill("mine\n");
  writeFileSync(path, "theirs\n");
  await page.getByText("has changed on disk").waitFor();
  await page.keyboard.press("Control+s");
  await sleep(200);
  assert.equal(readFileSync(path, "utf8"), "theirs\n");
  await page.getByRole("button", { name: "Keep mine" }).click();
  await until("the save", () => readFileSync(path, "utf8") === "mine\n");
  // A change elsewhere to what is not being edited is just shown.
  writeFileSync(path, "theirs again\n");
  await until("the new text", async () => (await editor.inputValue()) === "theirs again\n");
  assert.deepEqual(complaints, []);
  await close();
});

test("files are made, moved and deleted in the tree, by keyboard", async () => {
  const { page, complaints, close } = await open();
  await page.getByRole("button", { name: "New", exact: true }).click();
  await page.getByLabel("New file").fill("lib/new.txt");
  await page.keyboard.press("Enter");
  await until("the file", () => existsSync(join(server.workspace, "lib/new.txt")));
  const tree = page.getByRole("tree");
  await page.getByRole("treeitem", { name: "lib" }).click();
  await page.getByRole("treeitem", { name: "new.txt" }).click();
  await tree.focus();
  await page.keyboard.press("F2");
  await page.getByLabel("New path").fill("lib/moved.txt");
  await page.keyboard.press("Enter");
  await until("the move", () => existsSync(join(server.workspace, "lib/moved.txt")));
  await page.getByRole("treeitem", { name: "moved.txt" }).click();
  await tree.focus();
  await page.keyboard.press("Delete");
  await page.getByRole("button", { name: "Delete" }).last().click();
  await until("the end", () => !existsSync(join(server.workspace, "lib/moved.txt")));
  assert.deepEqual(complaints, []);
  await close();
});

test("terminals are typed into, several at a time, and survive a reload", async () => {
  const { page, complaints, close } = await open();
  await page.locator(".screen.active .xterm-rows").waitFor();
  await page.locator(".screen.active").click();
  await page.keyboard.type("echo first-$((1+1)); KEPT=yes\n");
  await until("the output", async () => (await terminalText(page)).includes("first-2"));
  await page.getByRole("button", { name: "New terminal" }).click();
  await until("two terminals", async () => (await page.locator(".terminals .tab").count()) === 2);
  await until("the second", async () => /[#$]/.test(await terminalText(page)));
  await page.keyboard.type("echo second-$((1+1))\n");
  await until("the output", async () => (await terminalText(page)).includes("second-2"));
  await page.reload();
  await until("the replay", async () => (await terminalText(page)).includes("first-2"));
  await page.locator(".screen.active").click();
  await page.keyboard.type("echo $KEPT-again\n");
  await until("the same shell", async () => (await terminalText(page)).includes("yes-again"));
  await page.locator(".terminals .tab").nth(1).getByRole("button").first().click();
  await until("the other one's replay", async () => (await terminalText(page)).includes("second-2"));
  await page.getByRole("button", { name: "Close bash" }).click();
  await until("one terminal", async () => (await page.locator(".terminals .tab").count()) === 1);
  assert.deepEqual(complaints, []);
  await close();
});

test("vim, tmux and htop draw what they should, for one who comes late as well", async () => {
  const { page, close } = await open();
  await page.locator(".screen.active .xterm-rows").waitFor();
  await page.locator(".screen.active").click();
  for (const [command, shows, quit] of [
    ["vim -u NONE index.js", /theirs|mine|console/, [":q!\n"]],
    ["htop", /CPU|PID/, ["q"]],
    ["tmux -L legwork-test -f /dev/null", /\[0\]/, ["exit\n"]],
  ]) {
    await page.keyboard.type(`${command}\n`);
    await until(command, async () => shows.test(await terminalText(page)), 20_000);
    const late = await open();
    await until(`${command}, late`, async () => shows.test(await terminalText(late.page)), 20_000);
    await late.close();
    for (const keys of quit) await page.keyboard.type(keys);
    await sleep(500);
    await page.keyboard.type("clear\n");
    await until("the prompt", async () => !shows.test(await terminalText(page)));
  }
  await close();
});

test("the preview shows the application, which reaches nothing of ours", async () => {
  const { page, close } = await open();
  await page.getByRole("button", { name: "Preview", exact: true }).click();
  const frame = page.frameLocator("iframe");
  await frame.getByText("Hello from the app").waitFor();
  await frame.getByText("parent:refused storage:refused api:refused").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-preview.png") });
  await close();
});

test("a token is asked for, and a wrong one refused", async () => {
  const guarded = await serve({ f: "x" }, { LEGWORK_WORKSPACE_TOKEN: "secret" });
  const { page, close } = await open({}, guarded.url);
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Connect" }).click();
  await page.getByText("not the right one").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-door.png") });
  await page.getByLabel("Token").fill("secret");
  await page.getByRole("button", { name: "Connect" }).click();
  await page.getByRole("treeitem", { name: "f" }).waitFor();
  await close();
  await guarded.stop();
});

test("a lost connection is said, and the page goes on when it is back", async () => {
  const { page, close } = await open();
  await page.getByText("connected", { exact: true }).waitFor();
  await page.context().setOffline(true);
  await page.evaluate(() => window.dispatchEvent(new Event("offline")));
  await page.getByText("no connection").waitFor();
  await page.context().setOffline(false);
  await page.getByText("connected", { exact: true }).waitFor();
  await close();
});

for (const theme of ["light", "dark"]) {
  for (const [name, width, height] of [
    ["wide", 1440, 900],
    ["phone", 360, 740],
  ]) {
    test(`${theme}, ${name}: nothing is wider than the page, and axe finds nothing serious`, async () => {
      const { page, close } = await open({ colorScheme: theme, viewport: { width, height } });
      await page.getByRole("treeitem", { name: "index.js" }).click();
      await page.getByRole("textbox", { name: /index\.js$/ }).waitFor();
      if (name === "phone") {
        if (shots) await page.screenshot({ path: join(shots, `workspace-${theme}-phone-editor.png`) });
        await page.getByRole("navigation").getByRole("button", { name: "Terminal" }).click();
      }
      await page.locator(".screen.active .xterm-rows").waitFor();
      await sleep(300);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
      const { violations } = await new AxeBuilder({ page }).exclude(".xterm").analyze();
      const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
      assert.deepEqual(
        serious.map((v) => [v.id, v.nodes[0].html]),
        [],
      );
      if (shots) await page.screenshot({ path: join(shots, `workspace-${theme}-${name}.png`) });
      await close();
    });
  }
}
