// A workspace server of the real binary, and helpers for its clients.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/**
 * Starts `legwork serve` over a folder with these files. `around`: what else to run it by, given the
 * command and the folder.
 */
export async function serve(files = {}, env = {}, around = (command) => command) {
  const home = mkdtempSync(join(tmpdir(), "legwork-workspace-"));
  const workspace = join(home, "workspace");
  mkdirSync(workspace);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(workspace, path)), { recursive: true });
    writeFileSync(join(workspace, path), text);
  }
  const [program, ...args] = around([process.env.LEGWORK_BIN, "serve", workspace, "--port", "0"], workspace);
  const child = spawn(program, args, {
    cwd: home,
    env: { PATH: process.env.PATH, HOME: home, PS1: "$ ", TMPDIR: home, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const url = await new Promise((resolve, reject) => {
    let said = "";
    child.stdout.on("data", (data) => {
      const found = (said += data).match(/serving .* on (http:\S+)/);
      if (found) resolve(found[1]);
    });
    child.on("exit", (code) => reject(new Error(`legwork serve ended with ${code}: ${said}`)));
  });
  const stop = async () => {
    child.removeAllListeners("exit");
    const ended = new Promise((resolve) => child.on("exit", resolve));
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
    const code = await ended;
    clearTimeout(timer);
    rmSync(home, { recursive: true, force: true });
    return code;
  };
  return { url, workspace, home, child, stop };
}

/** Waits until something is true. */
export async function until(what, check, ms = 30_000) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    const value = await check();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited in vain for ${what}`);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
