// Reads documents, one JSON text a line, and says of each what the official parser finds wrong: one JSON list a line.
import { createInterface } from "node:readline";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
for await (const line of lines) {
  const { document, diagnostics } = await parser.parse(line);
  const errors = diagnostics.filter((found) => found.severity === 0);
  const said = errors.map((found) => `${found.code} ${found.path.join("/")}: ${found.message}`);
  const seen = document
    ? {
        channels: document.channels().all().map((channel) => channel.address()),
        operations: document.operations().all().map((operation) => `${operation.action()} ${operation.channels().all()[0].id()}`),
      }
    : null;
  console.log(JSON.stringify({ errors: said, seen }));
}
