// The hub's page in Chromium, against the real binary.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";

const home = mkdtempSync(join(tmpdir(), "legwork-web-"));
const shots = process.env.LEGWORK_SCREENSHOTS;
let up, browser, url, token;

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

before(async () => {
  const listen = `127.0.0.1:${await freePort()}`;
  url = `http://${listen}`;
  up = spawn(process.env.LEGWORK_BIN, ["up", "--listen", listen], {
    env: { PATH: process.env.PATH, HOME: home },
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve, reject) => {
    let said = "";
    up.stdout.on("data", (data) => (said += data).includes("Ctrl-C stops both.") && resolve());
    up.on("exit", (code) => reject(new Error(`legwork up ended with ${code}`)));
  });
  token = readFileSync(join(home, ".local/share/legwork/hub/admin.token"), "utf8").trim();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
    ],
  });
});

after(async () => {
  await browser?.close();
  up?.removeAllListeners("exit");
  up?.kill("SIGKILL");
  rmSync(home, { recursive: true, force: true });
});

const api = async (path, body) => {
  const response = await fetch(`${url}/api/v1${path}`, {
    method: body ? "POST" : "GET",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  return response.json();
};

const submit = (command) =>
  api("/tasks", { select: { runner: "local" }, operation: "bash", args: { command } });

/** A signed-in page; anything the browser complains about fails the test. */
async function open(path, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.addInitScript((value) => localStorage.setItem("legwork.token", value), token);
  await page.goto(url + path);
  return { page, complaints, close: () => context.close() };
}

test("a person signs in with a token, and not with a wrong one", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(url);
  await page.locator("#token").fill("lwk_wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("the token is unknown").waitFor();
  await page.locator("#token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  await page.getByText("Nothing has been asked for yet").waitFor();
  await context.close();
});

test("tasks and runners appear without a reload", async () => {
  const { page, complaints, close } = await open("/");
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  await submit("uname -s");
  await page.getByRole("link", { name: "bash uname -s" }).waitFor();
  await page.getByText("succeeded").first().waitFor();
  await page.getByRole("link", { name: "Runners" }).click();
  await page.getByRole("cell", { name: "local" }).waitFor();
  await page.getByText("online").waitFor();
  assert.deepEqual(complaints, []);
  await close();
});

test("a task's output streams, stderr is told apart, a refusal is explained", async () => {
  const { id } = await submit("echo one; ls /nonexistent");
  const { page, complaints, close } = await open(`/tasks/${id}`);
  const output = page.getByRole("log", { name: "Output" });
  await output.getByText("one", { exact: true }).waitFor();
  await output.locator(".stderr", { hasText: "No such file" }).waitFor();
  await page.getByText("exit 2").waitFor();
  const denied = await submit("ls; rm -rf x");
  await page.goto(`${url}/tasks/${denied.id}`);
  await page.getByText("command denied by rule '*': rm -rf x").waitFor();
  assert.deepEqual(complaints, []);
  await close();
});

test("a running task is cancelled in two deliberate steps", async () => {
  const { id } = await submit("tail -f /etc/hostname");
  const { page, close } = await open(`/tasks/${id}`);
  await page.getByRole("button", { name: "Cancel…" }).click();
  await page.getByRole("button", { name: "Cancel 1 open run" }).click();
  await page.getByText("cancelled").first().waitFor();
  await close();
});

test("hostile names and output stay text", async () => {
  const command = "echo '<img src=x onerror=alert(1)>' \u202e";
  const { id } = await submit(command);
  const { page, complaints, close } = await open(`/tasks/${id}`);
  await page.getByText("⟨U+202E⟩").first().waitFor();
  await page.getByRole("log").getByText("<img src=x onerror=alert(1)>").waitFor();
  assert.equal(await page.locator("main img").count(), 0);
  assert.deepEqual(complaints, []);
  await close();
});

test("every page passes axe, light and dark, wide and narrow", async () => {
  const { id } = await submit("echo one; ls /nonexistent");
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1440, 360]) {
      for (const [name, path] of [
        ["tasks", "/"],
        ["runners", "/runners/all"],
        ["task", `/tasks/${id}`],
      ]) {
        const { page, close } = await open(path, { colorScheme, viewport: { width, height: 800 } });
        await page.locator("table, [role=log]").first().waitFor();
        const { violations } = await new AxeBuilder({ page }).analyze();
        const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
        const found = serious.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" ")}`);
        assert.deepEqual(found, [], `${name} ${colorScheme} ${width}`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.equal(overflow, false, `${name} ${colorScheme} ${width} scrolls sideways`);
        if (shots) await page.screenshot({ path: `${shots}/${name}-${colorScheme}-${width}.png` });
        await close();
      }
    }
  }
});
