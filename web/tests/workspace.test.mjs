// The workspace's page in Chromium, against the real binary.
import assert from "node:assert/strict";
import { existsSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import AxeBuilder from "@axe-core/playwright";
import { launch, opened, prompt, shots, terminalText, text, write } from "./lib/page.mjs";
import { serve, sleep, until } from "./lib/serve.mjs";

let server, browser;

before(async () => {
  server = await serve({ "index.js": "console.log(1)\n", "src/deep/a.txt": "a", "bin.dat": "\u0000x" });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const open = (options = {}, url = server.url) => opened(browser, url, options);

test("a file is found, edited, saved, and a change elsewhere is not overwritten", async () => {
  const { page, complaints, close } = await open();
  await page.getByRole("treeitem", { name: "index.js" }).click();
  await page.getByRole("textbox", { name: /index\.js$/ }).waitFor();
  await write(page, "console.log(2)\n");
  await page.keyboard.press("Control+s");
  const path = join(server.workspace, "index.js");
  await until("the save", () => readFileSync(path, "utf8") === "console.log(2)\n");
  // Somebody else changes it while it is being edited.
  await write(page, "mine\n");
  writeFileSync(path, "theirs\n");
  await page.getByText("has changed on disk").waitFor();
  if (shots) await page.screenshot({ path: join(shots, "workspace-conflict.png") });
  assert.equal(readFileSync(path, "utf8"), "theirs\n");
  await page.getByRole("button", { name: "Keep both" }).click();
  await until("both", async () => (await text(page)) === "theirs\nmine\n");
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+s");
  await until("the save", () => readFileSync(path, "utf8") === "theirs\nmine\n");
  // A change elsewhere to what is not being edited is just shown.
  writeFileSync(path, "theirs again\n");
  await until("the new text", async () => (await text(page)) === "theirs again\n");
  // And can be undone like any other.
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+z");
  await until("the old text", async () => (await text(page)) === "theirs\nmine\n");
  writeFileSync(path, "theirs once more\n");
  await page.getByRole("button", { name: "Take theirs" }).click();
  await until("theirs", async () => (await text(page)) === "theirs once more\n");
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
  // What was shown is shown again; the other one has gone on, too.
  await until("the replay", async () => (await terminalText(page)).includes("second-2"));
  await page.locator(".terminals .tab").nth(0).getByRole("button").first().click();
  await until("the first one's", async () => (await terminalText(page)).includes("first-2"));
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

test("vim, :q, reload, ls: nothing is typed into the shell that nobody typed", async () => {
  const { page, close } = await open();
  await prompt(page);
  // What vim asks, and what it would not: the place of the cursor, colours, a version.
  const asks = "\\033[6n\\033[c\\033[>c\\033]11;?\\007\\033[?2026$p\\033[>q";
  await page.keyboard.type(
    `clear; stty -echo -icanon; printf '${asks}'; timeout 2 cat > typed; stty sane; echo was-$((1+1))\n`,
  );
  await until("the questions", async () => (await terminalText(page)).includes("was-2"));
  const answered = readFileSync(join(server.workspace, "typed"), "utf8");
  assert.equal(answered.match(/\[\?1;2c/g)?.length, 1, JSON.stringify(answered));
  assert.match(answered, /\d+;\d+R.*rgb:.*\$y/s, JSON.stringify(answered));
  await page.keyboard.type("vim -u NONE index.js\n");
  await until("vim", async () => /~/.test(await terminalText(page)));
  await page.keyboard.type(":q!\n");
  for (let n = 0; n < 3; n += 1) {
    await page.reload();
    await until("the replay", async () => (await terminalText(page)).includes("was-2"));
    await sleep(300);
    await prompt(page);
    await page.keyboard.type(`echo again-${n}-$((1+1))\n`);
    await until("the shell", async () => (await terminalText(page)).includes(`again-${n}-2`));
    const text = await terminalText(page);
    assert.doesNotMatch(text, /command not found|\d+;\d+R|\d;2c|rgb:|\$y/, text);
  }
  await close();
});

test("of two pages one answers what a program asks", async () => {
  const [one, two] = [await open(), await open()];
  await prompt(one.page);
  await prompt(two.page);
  await one.page.keyboard.type(
    "clear; stty -echo -icanon; printf '\\033[c'; timeout 2 cat -v; stty sane; echo; echo over-$((1+1))\n",
  );
  await until("the end", async () => (await terminalText(one.page)).includes("over-2"));
  const answers = (await terminalText(one.page)).match(/\^\[\[\?1;2c/g) ?? [];
  assert.equal(answers.length, 1, await terminalText(one.page));
  await one.close();
  await two.close();
});

test("colours are shown, and can be read, in light and dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const { page, complaints, close } = await open({ colorScheme });
    await prompt(page);
    await page.keyboard.type(
      "clear; printf '\\033[31mRED\\033[32mGREEN\\033[38;2;250;120;10mTRUE\\033[38;5;99mPALE\\033[0m\\n'\n",
    );
    await until("the colours", async () => (await terminalText(page)).includes("REDGREENTRUEPALE\n"));
    const colour = (word) =>
      page.evaluate((word) => {
        const all = [...document.querySelectorAll(".screen.active .xterm-rows span")];
        const found = all.filter((span) => span.textContent === word).at(-1);
        return (
          found &&
          getComputedStyle(found)
            .color.match(/[\d.]+/g)
            .map(Number)
            .slice(0, 3)
        );
      }, word);
    const back = await page.evaluate(
      () =>
        getComputedStyle(document.querySelector(".screen.active .xterm-viewport, .screens")).backgroundColor,
    );
    const plain = await page.evaluate(() => getComputedStyle(document.querySelector(".xterm-rows")).color);
    const light = ([r, g, b]) => {
      const part = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
      return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    const ground = light(back.match(/[\d.]+/g).map(Number));
    for (const word of ["RED", "GREEN", "TRUE", "PALE"]) {
      const shown = await colour(word);
      assert.ok(shown, `${word} is no span of its own in ${colorScheme}`);
      assert.notDeepEqual(
        shown,
        plain
          .match(/[\d.]+/g)
          .map(Number)
          .slice(0, 3),
        `${word} in ${colorScheme}`,
      );
      const [a, b] = [light(shown), ground].sort((x, y) => y - x);
      assert.ok((a + 0.05) / (b + 0.05) > 4, `${word} ${shown} on ${back} in ${colorScheme}`);
    }
    if (shots) await page.screenshot({ path: join(shots, `workspace-colours-${colorScheme}.png`) });
    assert.deepEqual(complaints, []);
    await close();
  }
});

test("a file keeps its ends of lines when it is saved", async () => {
  writeFileSync(join(server.workspace, "dos.txt"), "one\r\ntwo\r\nthree\r\n");
  writeFileSync(join(server.workspace, "mixed.txt"), "a\r\nb\nc\rd\r\nend");
  const { page, close } = await open();
  for (const [name, edit, want] of [
    ["dos.txt", (text) => text.replace("two", "2\nnew"), "one\r\n2\r\nnew\r\nthree\r\n"],
    ["mixed.txt", (text) => text.replace("d\n", "D\nnew\n"), "a\r\nb\nc\rD\r\nnew\r\nend"],
  ]) {
    await page.getByRole("treeitem", { name }).click();
    await page.getByRole("textbox", { name: new RegExp(name.replace(".", "\\.")) }).waitFor();
    await write(page, edit(await text(page)));
    await page.keyboard.press("Control+s");
    await until("the save", () => readFileSync(join(server.workspace, name), "utf8") === want);
  }
  await close();
});

test("two names that are no UTF-8 do not blank the tree", async () => {
  for (const byte of [0xe9, 0xea]) {
    const name = Buffer.concat([Buffer.from(join(server.workspace, "latin-")), Buffer.from([byte])]);
    writeFileSync(name, "x");
  }
  const { page, complaints, close } = await open();
  await until("both", async () => (await page.getByRole("treeitem", { name: /^latin-/ }).count()) === 2);
  await page.getByRole("treeitem", { name: "index.js" }).waitFor();
  await page.getByRole("button", { name: /^Find/ }).click();
  await page.getByRole("combobox", { name: "A file or an action" }).fill("latin");
  await until("both, found", async () => (await page.getByRole("option").count()) >= 2);
  assert.deepEqual(complaints, []);
  await close();
  for (const byte of [0xe9, 0xea]) {
    unlinkSync(Buffer.concat([Buffer.from(join(server.workspace, "latin-")), Buffer.from([byte])]));
  }
});

test("Ctrl-P and Ctrl-K are the shell's, and a key copies", async () => {
  const { page, close } = await open();
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await prompt(page);
  await page.keyboard.type("clear\n");
  await page.keyboard.type("echo earlier-$((1+1))\n");
  await until("the line", async () => (await terminalText(page)).includes("earlier-2"));
  await page.keyboard.press("Control+p");
  await page.keyboard.type(" ; echo gone");
  for (let n = 0; n < 12; n += 1) await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Control+k");
  await page.keyboard.press("Enter");
  await until("once more", async () => ((await terminalText(page)).match(/^earlier-2/gm) ?? []).length === 2);
  assert.equal(await page.getByRole("dialog").count(), 0);
  await page.keyboard.type("clear; echo copy-$((1+1))\n");
  await until("the word", async () => /^copy-2/m.test(await terminalText(page)));
  const row = page
    .locator(".screen.active .xterm-rows > div")
    .filter({ hasText: /^copy-2/ })
    .first();
  const place = await row.boundingBox();
  await page.mouse.dblclick(place.x + 12, place.y + place.height / 2);
  await page.keyboard.press("Control+Shift+c");
  await until("the copy", async () =>
    (await page.evaluate(() => navigator.clipboard.readText())).includes("copy"),
  );
  await page.keyboard.press("Control+Shift+p");
  await page.getByRole("dialog").waitFor();
  await close();
});

test("what is typed without a connection is not run later", async () => {
  const { page, close } = await open();
  await prompt(page);
  await page.keyboard.type("clear\n");
  await page.context().setOffline(true);
  await page.evaluate(() => window.dispatchEvent(new Event("offline")));
  await page.getByText("no connection", { exact: false }).first().waitFor();
  await page.locator(".screen.active").click();
  await page.keyboard.type("touch typed-offline\n");
  await page.getByText("Not typed").waitFor();
  await page.context().setOffline(false);
  await page.getByText("connected", { exact: true }).waitFor();
  await page.locator(".screen.active").click();
  await page.keyboard.type("touch typed-online\n");
  await until("the second", () => existsSync(join(server.workspace, "typed-online")));
  assert.ok(!existsSync(join(server.workspace, "typed-offline")));
  await close();
});

test("a paste of more than a megabyte arrives whole", async () => {
  const { page, close } = await open();
  await prompt(page);
  await page.keyboard.type(
    "clear; stty -echo; echo ready-$((1+1)); cat > pasted; stty echo; echo over-$((1+1))\n",
  );
  await until("cat", async () => (await terminalText(page)).includes("ready-2"));
  const lines = 30_000;
  await page.evaluate((lines) => {
    const text = Array.from({ length: lines }, (_, n) => `line ${n} ${"x".repeat(40)}`).join("\n") + "\n";
    const data = new DataTransfer();
    data.setData("text/plain", text);
    const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
    document.querySelector(".screen.active textarea").dispatchEvent(event);
  }, lines);
  await page.getByRole("button", { name: "Paste", exact: true }).click();
  const path = join(server.workspace, "pasted");
  const last = `line ${lines - 1} ${"x".repeat(40)}\n`;
  await until("all of it", () => existsSync(path) && readFileSync(path, "utf8").endsWith(last), 90_000);
  assert.equal(readFileSync(path, "utf8").split("\n").length, lines + 1);
  await page.keyboard.press("Control+d");
  await until("the end", async () => (await terminalText(page)).includes("over-2"));
  await close();
});

test("a double click opens what was clicked, and a moved file keeps its tab", async () => {
  for (const name of ["m1.txt", "m2.txt", "m3.txt"]) writeFileSync(join(server.workspace, name), name);
  const { page, complaints, close } = await open();
  const item = page.getByRole("treeitem", { name: "m2.txt" });
  await item.waitFor();
  const box = await item.boundingBox();
  await page.mouse.dblclick(box.x + 30, box.y + box.height / 2);
  await page.getByRole("textbox", { name: /m\d\.txt$/ }).waitFor();
  assert.equal(await text(page), "m2.txt");
  await sleep(300);
  assert.equal(await page.locator(".editor .tab").count(), 1);
  await write(page, "edited");
  await page.getByRole("tree").focus();
  await page.keyboard.press("F2");
  await page.getByLabel("New path").fill("sub/m2-moved.txt");
  await page.keyboard.press("Enter");
  await until("the move", () => existsSync(join(server.workspace, "sub/m2-moved.txt")));
  await page.locator(".editor .cm-content").first().click();
  await page.keyboard.press("Control+s");
  const path = join(server.workspace, "sub/m2-moved.txt");
  await until("the save", () => readFileSync(path, "utf8") === "edited");
  assert.ok(!existsSync(join(server.workspace, "m2.txt")));
  assert.equal(await page.locator(".editor .tab").count(), 1);
  assert.deepEqual(complaints, []);
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
