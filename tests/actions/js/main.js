const fs = require('fs');
fs.appendFileSync(process.env.GITHUB_OUTPUT, `text=from ${process.env.INPUT_WHO}\n`);
fs.appendFileSync(process.env.GITHUB_STATE, 'word=kept\n');
