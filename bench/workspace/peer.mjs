// A server of the original's design, of the parts its description names: Express, Socket.IO
// 4.7, node-pty, fs. What Legwork's figures are compared with.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import express from "express";
import pty from "node-pty";
import { Server } from "socket.io";

const workspace = process.env.WORKSPACE;
const skipped = new Set(["node_modules", ".git"]);

async function tree(dir) {
  const entries = await readdir(dir, { withFileTypes: true });
  const nodes = entries
    .filter((entry) => !skipped.has(entry.name))
    .map(async (entry) => {
      const path = join(dir, entry.name);
      return entry.isDirectory()
        ? { name: entry.name, type: "directory", path, children: await tree(path) }
        : { name: entry.name, type: "file", path };
    });
  return Promise.all(nodes);
}

const app = express();
app.get("/files", (_, response) => response.json({ status: "ok" }));
const server = createServer(app);
const io = new Server(server, { cors: { origin: "*" } });
const shell = pty.spawn("/bin/bash", [], { name: "xterm-256color", cols: 80, rows: 24, cwd: workspace });
shell.onData((data) => io.emit("terminal:data", { data }));
io.on("connection", (socket) => {
  socket.on("fetchDir", async ({ path }) => socket.emit("file:refresh", { tree: await tree(path) }));
  socket.on("fetchContent", async ({ path }) => socket.emit("file:content", { content: await readFile(path, "utf8") }));
  socket.on("updateContent", async ({ path, content }) => {
    await writeFile(path, content);
    io.emit("file:refresh", { tree: await tree(workspace) });
  });
  socket.on("terminal:write", ({ data }) => shell.write(data));
});
server.listen(Number(process.env.PORT), "127.0.0.1", () => console.log(`serving on ${server.address().port}`));
