console.log(`after the job with ${process.env.STATE_word}`);
