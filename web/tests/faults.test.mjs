// What goes wrong while one works: it is said in place, and nothing is lost.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer as net } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, opened, paste, prompt, shots, terminalText, text, write } from "./lib/page.mjs";
import { serve, until } from "./lib/serve.mjs";

let server, browser;
const at = (path) => join(server.workspace, path);
const item = (page, name) => page.getByRole("treeitem", { name, exact: true });
const alert = (page) => page.getByRole("alert");

before(async () => {
  server = await serve({ "a.txt": "one\n", "kept.txt": "kept\n" });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const canMount = spawnSync("unshare", ["-m", "true"]).status === 0;

test("a full disk while saving", { skip: !canMount && "needs a mount namespace" }, async () => {
  // The server and its terminals see a small disk; nobody else does.
  const small = 'mount -t tmpfs -o size=2m none "$1" && echo kept > "$1/a.txt" && shift && exec "$@"';
  const full = await serve({}, { MIN_FREE_BYTES: "0" }, (command, folder) => [
    "unshare",
    "-m",
    "sh",
    "-c",
    small,
    "sh",
    folder,
    ...command,
  ]);
  const onDisk = async () => (await fetch(`${full.url}/api/files/a.txt`)).text();
  const { page, close } = await opened(browser, full.url);
  await prompt(page);
  await page.keyboard.type("cat /dev/zero > fill; echo full-$((1+1))\n");
  await until("a full disk", async () => (await terminalText(page)).includes("full-2"));
  await item(page, "a.txt").click();
  const long = `${"x".repeat(99)}\n`.repeat(3000);
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+a");
  await paste(page, long);
  await page.keyboard.press("Control+s");
  await alert(page).getByText("no space left").first().waitFor();
  await page.getByText("Your text is kept here").first().waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-full.png") });
  assert.equal(await onDisk(), "kept\n", "what was there is there");
  // New files and terminals say it, too.
  await page.getByRole("button", { name: "New", exact: true }).click();
  await page.getByLabel("New file").fill("b.txt");
  await prompt(page);
  await page.keyboard.type("rm fill; echo free-$((1+1))\n");
  await until("room", async () => (await terminalText(page)).includes("free-2"));
  await page.getByRole("button", { name: "Try again" }).first().click();
  await until("the save", async () => (await onDisk()) === long);
  await close();
  await full.stop();
});

test("twelve megabytes and half a character in a save", async () => {
  const { page, complaints, close } = await opened(browser, server.url);
  await item(page, "a.txt").click();
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+a");
  await paste(page, `${"y".repeat(119)}\n`.repeat(100_000));
  await page.keyboard.press("Control+s");
  await alert(page).getByText("file too large").first().waitFor();
  await page.getByText("connected", { exact: true }).waitFor();
  assert.equal(readFileSync(at("a.txt"), "utf8"), "one\n");
  // It is still being edited: what is too much is taken away, and then it is saved.
  await write(page, "half \ud83d of it\n");
  await page.keyboard.press("Control+s");
  await until("the save", () => readFileSync(at("a.txt"), "utf8") === "half \ufffd of it\n");
  await page.getByText("connected", { exact: true }).waitFor();
  await write(page, "whole 😀\n");
  await page.keyboard.press("Control+s");
  await until("the next save", () => readFileSync(at("a.txt"), "utf8") === "whole 😀\n");
  assert.deepEqual(complaints, []);
  await close();
});

test("more files than fit into a tree", async (t) => {
  const many = await serve({ "a.txt": "one\n" });
  t.after(many.stop);
  mkdirSync(join(many.workspace, "0flat"));
  execFileSync(
    "sh",
    [
      "-c",
      "cd 0flat && seq -f 'f%06g.txt' 1 25000 | xargs touch && cd .. && seq -f 'd%03g' 1 10 | while read d; do mkdir $d; (cd $d && seq -f '%04g' 1 100 | xargs touch); done",
    ],
    { cwd: many.workspace },
  );
  const { page, complaints, close } = await opened(browser, many.url);
  await page.getByText("more than fits into one tree").waitFor();
  const rows = () => page.getByRole("treeitem").count();
  await item(page, "0flat").click();
  await item(page, "f000002.txt").waitFor();
  await page.getByText("the first 20,000 entries are shown").waitFor();
  assert.ok((await rows()) < 200, `${await rows()} rows are drawn`);
  await page.getByRole("tree").focus();
  await page.keyboard.press("End");
  await until("the end of the tree", async () => (await item(page, "0flat").count()) === 0);
  // What the tree does not show is found.
  await page.keyboard.press("Control+Shift+k");
  await page.getByRole("combobox", { name: "A file or an action" }).fill("f024999");
  await page.getByRole("option", { name: /0flat\/f024999\.txt/ }).click();
  await until(
    "its tab",
    async () => (await page.getByRole("button", { name: /^f024999\.txt/ }).count()) === 1,
  );
  writeFileSync(join(many.workspace, "new.txt"), "new");
  await page.getByRole("tree").focus();
  await until("the new one", async () => {
    await page.keyboard.press("End");
    return (await item(page, "new.txt").count()) === 1;
  });
  if (shots) await page.screenshot({ path: join(shots, "workspace-many.png") });
  assert.deepEqual(complaints, []);
  await close();
});

test("back at once when there is a network again", async (t) => {
  // Between the page and the server stands somebody who can be away.
  const port = Number(new URL(server.url).port);
  const sockets = new Set();
  let away = false;
  const between = net((near) => {
    if (away) return near.destroy();
    const far = connect(port, "127.0.0.1");
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => socket.destroy());
      socket.on("close", () => sockets.delete(socket) && (near.destroy(), far.destroy()));
    }
    near.pipe(far).pipe(near);
  });
  await new Promise((resolve) => between.listen(0, "127.0.0.1", resolve));
  t.after(() => between.close());
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.clock.install();
  await page.goto(`http://127.0.0.1:${between.address().port}`);
  await page.getByText("connected", { exact: true }).waitFor();
  for (const event of ["online", "focus"]) {
    away = true;
    for (const socket of sockets) socket.destroy();
    await page.getByText("no connection", { exact: false }).first().waitFor();
    // From here on no timer of the page's runs: it must not wait for one.
    await page.clock.pauseAt(await page.evaluate(() => Date.now() + 1000));
    away = false;
    await page.evaluate((event) => window.dispatchEvent(new Event(event)), event);
    await page.getByText("connected", { exact: true }).waitFor();
    await page.clock.resume();
  }
  await context.close();
});

test("half-open connections keep nobody out of the page", async (t) => {
  const guarded = await serve({ "a.txt": "one\n" }, { LEGWORK_WORKSPACE_TOKEN: "secret" });
  t.after(guarded.stop);
  const { page, close } = await opened(browser, `${guarded.url}/#token=secret`);
  await item(page, "a.txt").waitFor();
  const { port } = new URL(guarded.url);
  const half = await Promise.all(
    Array.from(
      { length: 1000 },
      () =>
        new Promise((resolve) => {
          const socket = connect(Number(port), "127.0.0.1", () => {
            socket.write("GET /api/info HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ");
            resolve(socket);
          });
          socket.on("error", () => resolve(socket));
        }),
    ),
  );
  await item(page, "a.txt").click();
  await until("its text", async () => (await text(page)) === "one\n");
  await write(page, "two\n");
  await page.keyboard.press("Control+s");
  await until("the save", () => readFileSync(join(guarded.workspace, "a.txt"), "utf8") === "two\n");
  const late = await opened(browser, `${guarded.url}/#token=secret`);
  await item(late.page, "a.txt").waitFor();
  for (const socket of half) socket.destroy();
  await late.close();
  await close();
});
