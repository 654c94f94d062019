// What one does all day in the workspace's page, in Chromium.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, opened, prompt, shots, terminalText, text, write } from "./lib/page.mjs";
import { serve, until } from "./lib/serve.mjs";

let server, browser;
const at = (path) => join(server.workspace, path);
const open = (options = {}) => opened(browser, server.url, options);
const item = (page, name) => page.getByRole("treeitem", { name, exact: true });

before(async () => {
  server = await serve({
    "a.txt": "one\ntwo\nthree\n",
    "b.js": 'const answer = 42; // "needle"\n',
    "src/deep/c.py": "def f():\n    return 'needle'\n",
    ".hidden": "h",
  });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("undo survives a change of tabs, splits show the same text, and tabs come back after a reload", async () => {
  const { page, complaints, close } = await open();
  await item(page, "a.txt").click();
  await write(page, "changed\n");
  await item(page, "b.js").click();
  await until("the other file", async () => (await text(page)).includes("answer"));
  await page.getByRole("button", { name: /^a\.txt/ }).click();
  await until("the first", async () => (await text(page)) === "changed\n");
  await page.getByRole("button", { name: "Split the editor" }).first().click();
  const second = page.locator(".editor .cm-content").nth(1);
  await second.waitFor();
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+z");
  await until("the old text", async () => (await text(page)) === "one\ntwo\nthree\n");
  await until("in both", async () => (await second.innerText()).includes("three"));
  await page.keyboard.press("Control+Shift+z");
  await until("again", async () => (await text(page)) === "changed\n");
  page.on("dialog", (dialog) => void dialog.accept());
  await page.reload();
  await until("what was not saved", async () => (await text(page)) === "changed\n");
  await page.getByText("What was not saved").waitFor();
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+z");
  await until("what is on disk", async () => (await text(page)) === "one\ntwo\nthree\n");
  assert.deepEqual(complaints, []);
  await close();
});

test("find and replace, go to a line, and search in all files", async () => {
  const { page, complaints, close } = await open();
  await item(page, "a.txt").click();
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+f");
  await page.getByPlaceholder("Find").fill("t");
  await page.getByPlaceholder("Replace").fill("T");
  await page.getByRole("button", { name: "replace all" }).click();
  await until("the replacement", async () => (await text(page)) === "one\nTwo\nThree\n");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+Shift+f");
  await page.getByLabel("Search in all files").fill("needle");
  await page.getByText("2 in 2 files").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-search.png") });
  await page.getByRole("button", { name: /return/ }).click();
  await until("the file", async () => (await text(page)).includes("def f"));
  await until("the place", () =>
    page.evaluate(
      () =>
        getSelection()?.anchorNode?.parentElement?.closest(".cm-line")?.textContent?.includes("needle") ??
        false,
    ),
  );
  await page.getByLabel("Search in all files").fill("(");
  await page.getByRole("button", { name: ".*" }).click();
  await page.getByText("no regular expression").waitFor();
  assert.deepEqual(complaints, []);
  await close();
});

test("encodings are kept, and what one can't hold is said", async () => {
  writeFileSync(at("latin.txt"), Buffer.from([0x63, 0x61, 0x66, 0xe9, 0x0a]));
  writeFileSync(at("wide.txt"), Buffer.from("\ufeffhé\r\n", "utf16le"));
  writeFileSync(at("mark.txt"), "\ufeffmarked\n");
  const { page, complaints, close } = await open();
  for (const [name, shown, typed, want] of [
    ["latin.txt", "café\n", "thé\n", Buffer.from([0x74, 0x68, 0xe9, 0x0a])],
    ["wide.txt", "hé\n", "hé!\n", Buffer.from("\ufeffhé!\r\n", "utf16le")],
    ["mark.txt", "marked\n", "more\n", Buffer.from("\ufeffmore\n")],
  ]) {
    await item(page, name).click();
    await until(name, async () => (await text(page)) === shown);
    await write(page, typed);
    await page.keyboard.press("Control+s");
    await until(`${name}, saved`, () => readFileSync(at(name)).equals(want));
  }
  await item(page, "latin.txt").click();
  await until("latin", async () => (await text(page)) === "thé\n");
  await write(page, "λ\n");
  await page.keyboard.press("Control+s");
  await page.getByText("no character of Latin-1").first().waitFor();
  assert.equal(readFileSync(at("latin.txt"), "latin1"), "thé\n");
  await page.getByTitle("Encoding").click();
  await page.getByRole("menuitem", { name: "Save as UTF-8 from now on" }).click();
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+s");
  await until("the save", () => readFileSync(at("latin.txt"), "utf8") === "λ\n");
  assert.deepEqual(complaints, []);
  await close();
});

test("files come by drop with their folders, move by drag, and go by download", async () => {
  const { page, complaints, close } = await open();
  await item(page, "a.txt").waitFor();
  const transfer = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped"], "dropped.txt"));
    data.items.add(new File(["again"], "a.txt"));
    return data;
  });
  await page.getByRole("tree").dispatchEvent("dragover", { dataTransfer: transfer });
  await page.getByRole("tree").dispatchEvent("drop", { dataTransfer: transfer });
  await until("the upload", () => existsSync(at("dropped.txt")));
  // What is there already is not replaced without a word.
  const uploads = page.getByRole("list", { name: "Uploads" });
  await uploads.getByText("is there already").waitFor();
  assert.notEqual(readFileSync(at("a.txt"), "utf8"), "again");
  await uploads.getByRole("button", { name: "Replace" }).click();
  await until("the replacement", () => readFileSync(at("a.txt"), "utf8") === "again");
  await item(page, "dropped.txt").waitFor();
  await item(page, "dropped.txt").dragTo(item(page, "src"));
  await until("the move", () => existsSync(at("src/dropped.txt")));
  await page.getByRole("button", { name: "Move it back" }).click();
  await until("the way back", () => existsSync(at("dropped.txt")));
  await item(page, "dropped.txt").click({ button: "right" });
  if (shots) await page.screenshot({ path: join(shots, "workspace-menu.png") });
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("menuitem", { name: "Download", exact: true }).click(),
  ]);
  assert.equal(readFileSync(await download.path(), "utf8"), "dropped");
  await page.getByRole("tree").focus();
  await item(page, "src").click({ button: "right" });
  const [archive] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("menuitem", { name: "Download as zip" }).click(),
  ]);
  assert.equal(
    readFileSync(await archive.path())
      .subarray(0, 2)
      .toString(),
    "PK",
  );
  await page.getByRole("button", { name: /^More about/ }).click();
  await page.getByRole("menuitem", { name: "Hide names with a dot" }).click();
  await until("no dots", async () => (await item(page, ".hidden").count()) === 0);
  assert.deepEqual(complaints, []);
  await close();
});

test("git's state is shown in the tree, beside lines, and as a difference", async () => {
  const git = (...args) =>
    execFileSync("git", ["-C", server.workspace, "-c", "user.name=a", "-c", "user.email=a@b", ...args]);
  git("init", "-q", "-b", "trunk");
  git("add", "a.txt", "b.js");
  git("commit", "-qm", "one");
  writeFileSync(at("b.js"), 'const answer = 43;\nconst more = "x";\n');
  const { page, complaints, close } = await open();
  await page.getByText("trunk").first().waitFor();
  await until("the letter", async () => (await page.locator('.letter[data-git="M"]').count()) > 0);
  await page.getByRole("treeitem", { name: /^b\.js/ }).click();
  await page.locator(".cm-changes .cm-altered").first().waitFor();
  await page.getByRole("tab", { name: /^Changes/ }).click();
  await page.getByTitle("b.js: modified").click();
  await page.locator(".cm-mergeView").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-diff.png") });
  // A repository that names programs to be run is not asked.
  git("config", "core.fsmonitor", `touch ${at("owned")}`);
  await page.getByRole("button", { name: "Look again" }).click();
  await page.getByText("could run a program").waitFor();
  assert.ok(!existsSync(at("owned")));
  git("config", "--unset", "core.fsmonitor");
  assert.deepEqual(complaints, []);
  await close();
});

test("snapshots are made, looked at and restored", async () => {
  writeFileSync(at("snap.txt"), "before");
  const { page, close } = await open();
  await page.getByRole("tab", { name: "More" }).click();
  await page.getByLabel("Name of the snapshot").fill("first");
  await page.getByRole("button", { name: "Make one" }).click();
  await page.getByText("The snapshot “first” is made.").waitFor();
  writeFileSync(at("snap.txt"), "after");
  await page.getByRole("button", { name: "What has changed since" }).first().click();
  await page.locator(".difference").getByText("snap.txt").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-snapshots.png") });
  await page.getByRole("button", { name: "Restore", exact: true }).first().click();
  await page.getByRole("button", { name: "Restore all files" }).click();
  await until("the file", () => readFileSync(at("snap.txt"), "utf8") === "before");
  await close();
});

test("a file that is deleted, renamed or replaced while it is edited loses nothing", async () => {
  const { page, complaints, close } = await open();
  writeFileSync(at("lost.txt"), "lost\n");
  await item(page, "lost.txt").click();
  await write(page, "mine\n");
  unlinkSync(at("lost.txt"));
  await page.getByText("was deleted, moved or replaced").waitFor();
  await page.getByRole("button", { name: "Save it again" }).click();
  await until(
    "the file",
    () => existsSync(at("lost.txt")) && readFileSync(at("lost.txt"), "utf8") === "mine\n",
  );
  await write(page, "more\n");
  renameSync(at("lost.txt"), at("found.txt"));
  mkdirSync(at("lost.txt"));
  await page.getByText("was deleted, moved or replaced").waitFor();
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+s");
  await page.getByText("Your text is kept here").first().waitFor();
  assert.equal(await text(page), "more\n");
  // A folder that becomes a link out of the workspace while it is open.
  mkdirSync(at("swapped"));
  writeFileSync(at("swapped/in.txt"), "in\n");
  await item(page, "swapped").click();
  await item(page, "in.txt").click();
  await until("the file", async () => (await page.getByRole("button", { name: /^in\.txt/ }).count()) === 1);
  await until("its text", async () => (await text(page)) === "in\n");
  renameSync(at("swapped"), at("elsewhere"));
  symlinkSync("/etc", at("swapped"));
  await write(page, "out\n");
  await page.keyboard.press("Control+s");
  await page.getByRole("alert").first().waitFor();
  assert.equal(await text(page), "out\n");
  assert.ok(!existsSync("/etc/in.txt"));
  assert.deepEqual(complaints, []);
  await close();
});

test("names that deceive are shown as they are", async () => {
  const strange = ["line\nbreak.txt", "evil\u202etxt.js", "tab\there"];
  for (const name of strange) writeFileSync(at(name), "x");
  const { page, complaints, close } = await open();
  await page.getByRole("treeitem", { name: "line⟨U+000A⟩break.txt" }).click();
  await until("it", async () => (await text(page)) === "x");
  await page.getByRole("treeitem", { name: "evil⟨U+202E⟩txt.js" }).waitFor();
  await page.getByRole("treeitem", { name: "tab⟨U+0009⟩here" }).waitFor();
  for (const name of strange) unlinkSync(at(name));
  assert.deepEqual(complaints, []);
  await close();
});

test("a hundred megabytes are opened to be read, and a line of three megabytes is edited", async () => {
  const line = `${"0123456789".repeat(10)}\n`;
  writeFileSync(at("large.log"), line.repeat((24 << 20) / line.length));
  appendFileSync(at("large.log"), "the very last line\n");
  writeFileSync(at("long.json"), `["${"x".repeat(3 << 20)}"]`);
  const { page, complaints, close } = await open();
  await item(page, "large.log").click();
  await page.getByText("shown to be read").waitFor();
  await until("its end", async () => !(await page.getByText("MiB of").count()));
  await page.getByRole("region", { name: /large\.log/ }).focus();
  await page.keyboard.press("End");
  await page.getByText("the very last line").waitFor();
  await item(page, "long.json").click();
  await page.getByRole("textbox", { name: /long\.json$/ }).click();
  await page.keyboard.press("Home");
  await page.keyboard.type("[1,");
  await page.keyboard.press("Control+s");
  await until("the save", () => readFileSync(at("long.json"), "utf8").startsWith("[1,"));
  unlinkSync(at("large.log"));
  assert.deepEqual(complaints, []);
  await close();
});

test("many lines are asked about before they are pasted, and terminals stand side by side", async () => {
  const { page, complaints, close } = await open();
  await prompt(page);
  await page.keyboard.type(
    "bind 'set enable-bracketed-paste off'; echo ready-$((1+1)); cat > pasted-lines\n",
  );
  await until("cat", async () => (await terminalText(page)).includes("ready-2"));
  const paste = (text) =>
    page.evaluate((text) => {
      const data = new DataTransfer();
      data.setData("text/plain", text);
      const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
      document.querySelector(".screen.active textarea").dispatchEvent(event);
    }, text);
  await paste("l1\nl2\nl3\nl4\nl5\nl6\n");
  await page.getByRole("alertdialog").getByText("Paste 7 lines?").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-paste.png") });
  await page.getByRole("button", { name: "Leave it" }).click();
  await paste("l1\nl2\nl3\nl4\nl5\nl6\n");
  await page.getByRole("button", { name: "Paste", exact: true }).click();
  await until(
    "the lines",
    () =>
      existsSync(at("pasted-lines")) &&
      readFileSync(at("pasted-lines"), "utf8") === "l1\nl2\nl3\nl4\nl5\nl6\n",
  );
  await page.keyboard.press("Control+d");
  await page.getByRole("button", { name: "Split the terminal" }).click();
  await until("two", async () => (await page.locator(".slot:visible").count()) === 2);
  await page.locator(".slot:visible").nth(1).click();
  await page.keyboard.type("echo right-$((1+1))\n");
  await until("the right one", async () =>
    (await page.locator(".slot:visible").nth(1).innerText()).includes("right-2"),
  );
  await page.keyboard.press("Control+Shift+f");
  await page.getByLabel("Find in the terminal").fill("right");
  await page.keyboard.press("Escape");
  assert.deepEqual(complaints, []);
  await close();
});

test("who comes back sees the lines above the screen, and the size is that of who types", async () => {
  const large = await open({ viewport: { width: 1400, height: 900 } });
  await prompt(large.page);
  await large.page.keyboard.type("clear; seq -f 'row-%05g' 1 3000; echo end-$((1+1))\n");
  await until("the end", async () => (await terminalText(large.page)).includes("end-2"));
  await large.page.reload();
  await until("the end again", async () => (await terminalText(large.page)).includes("end-2"));
  await large.page.locator(".screen.active").click();
  await large.page.keyboard.press("Control+Shift+f");
  await large.page.getByLabel("Find in the terminal").fill("row-00007");
  await until("the first rows", async () => (await terminalText(large.page)).includes("row-00007"));
  await large.page.keyboard.press("Escape");
  let asked = 0;
  const cols = async (page) => {
    asked += 1;
    await page.locator(".screen.active").click();
    await page.keyboard.type(`clear; echo at-${asked} $(stty size)\n`);
    const said = new RegExp(`at-${asked} \\d+ (\\d+)`);
    return until("the size", async () => said.exec(await terminalText(page))?.[1]);
  };
  const wide = Number(await cols(large.page));
  const small = await open({ viewport: { width: 700, height: 700 } });
  await small.page.getByRole("navigation").getByRole("button", { name: "Terminal" }).click();
  await until("a look", async () => (await terminalText(small.page)).length > 0);
  assert.equal(Number(await cols(large.page)), wide, "who looks has no say");
  const narrow = Number(await cols(small.page));
  assert.ok(narrow < wide, `${narrow} of ${wide}`);
  await small.close();
  assert.equal(Number(await cols(large.page)), wide);
  await large.close();
});

test("all is done by keyboard alone", async () => {
  const { page, complaints, close } = await open();
  await item(page, "a.txt").waitFor();
  await page.keyboard.press("F6");
  const part = () =>
    page.evaluate(() => document.activeElement?.closest("aside, .editor, .terminal")?.className ?? "");
  const seen = new Set();
  for (let n = 0; n < 4; n += 1) {
    seen.add((await part()).split(" ")[0]);
    await page.keyboard.press("F6");
  }
  assert.ok(seen.has("files") && seen.has("terminal"), [...seen].join());
  await page.keyboard.press("Control+Shift+k");
  await page.keyboard.type("b.js");
  await page.keyboard.press("Enter");
  await until("the file", async () => (await text(page)).includes("answer"));
  await page.keyboard.press("Control+`");
  await until("the terminal", async () => (await part()).includes("terminal"));
  await page.keyboard.press("Control+`");
  await until("the editor", async () => (await part()).includes("editor"));
  await page.keyboard.press("Alt+w");
  await page.getByText("Nothing is open.").waitFor();
  await page.keyboard.press("F6");
  await page.keyboard.press("Control+Shift+f");
  await page.keyboard.press("Control+b");
  assert.deepEqual(complaints, []);
  await close();
});

test("a network that is silently gone is noticed in five seconds, and nothing is lost", async () => {
  let gone = false;
  const sockets = new Set();
  const between = createServer((near) => {
    const far = connect(Number(new URL(server.url).port), "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      sockets.add(from);
      // What comes while the network is gone never arrives.
      from.on("data", (data) => gone || to.write(data));
      from.on("close", () => to.destroy());
      from.on("error", () => to.destroy());
    }
  });
  await new Promise((resolve) => between.listen(0, "127.0.0.1", resolve));
  const { page, close } = await opened(browser, `http://127.0.0.1:${between.address().port}`);
  await page.getByText("connected", { exact: true }).waitFor();
  await item(page, "a.txt").click();
  await write(page, "while it was gone\n");
  const since = Date.now();
  gone = true;
  await page.getByText("no connection", { exact: false }).first().waitFor();
  // On a busy machine the page's own clock is late.
  assert.ok(Date.now() - since < 8000, `${Date.now() - since} ms`);
  if (shots) await page.screenshot({ path: join(shots, "workspace-gone.png") });
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+s");
  await page.getByText("Your text is kept here").waitFor();
  gone = false;
  for (const socket of sockets) socket.destroy();
  await page.getByText("connected", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Try again" }).click();
  await until("the save", () => readFileSync(at("a.txt"), "utf8") === "while it was gone\n");
  await close();
  between.close();
});
