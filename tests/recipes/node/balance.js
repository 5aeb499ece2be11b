// A plain grpc-js client of xds:///SERVICE: prints which backends answered, again and again.
//
// usage: node balance.js SERVICE PROTO    (GRPC_XDS_BOOTSTRAP_CONFIG or GRPC_XDS_BOOTSTRAP; the packages
// @grpc/grpc-js, @grpc/grpc-js-xds and @grpc/proto-loader in NODE_PATH)
'use strict';

let grpc, loader;
try {
  grpc = require('@grpc/grpc-js');
  loader = require('@grpc/proto-loader');
  require('@grpc/grpc-js-xds').register();
} catch (error) {
  console.log('skip: ' + error.message.split('\n')[0]);
  process.exit(0);
}

const CALLS_PER_ROUND = 60;
const [service, proto] = process.argv.slice(2);
const examples = grpc.loadPackageDefinition(loader.loadSync(proto)).conclave.examples;
const greeter = new examples.Greeter('xds:///' + service, grpc.credentials.createInsecure());

function call() {
  return new Promise((resolve) => {
    greeter.greet({name: 'node'}, {deadline: Date.now() + 10000},
                  (error, reply) => resolve(error ? 'failed: ' + error.details : reply.backend));
  });
}

async function main() {
  for (;;) {
    const answers = new Set();
    for (let i = 0; i < CALLS_PER_ROUND; ++i) answers.add(await call());
    console.log([...answers].sort().join(' '));
  }
}

main();
