// Plain JavaScript, run before everything else by the npm scripts: an older Node cannot even parse the
// TypeScript that would tell what is wrong. Node 24 comes with `npm ci` (the optional packages node-linux-*).
const major = Number(process.versions.node.split('.')[0]);
if (major !== 24) {
  process.stderr.write(
    `cinder-delta runs on Node 24; this is Node ${process.versions.node} (${process.execPath}).\n` +
      'Node 24 is installed into node_modules/.bin by `npm ci`, unless optional packages are left out: run\n' +
      '`npm ci --include=optional` and start through npm (`npm start`, `npm test`), which finds it there;\n' +
      'on a processor other than x64 or arm64 install Node 24 yourself and put it first on PATH.\n',
  );
  process.exit(1);
}
