// What a service in Node does with the package etcd3. usage: client.js HOSTS [CA CERT KEY], with the certificates also
// as the user ann, who may do everything from a on, before b, and nothing else.
const fs = require('fs');
const {Etcd3, EtcdPermissionDeniedError} = require('etcd3');

function expect(what, found, wanted) {
  if (found !== wanted) throw new Error(`${what}: ${found} and not ${wanted}`);
}

async function main(hosts, ca, cert, key) {
  const options = {hosts};
  if (ca) {
    options.credentials = {
      rootCertificate: fs.readFileSync(ca), certChain: fs.readFileSync(cert), privateKey: fs.readFileSync(key),
    };
    options.auth = {username: 'ann', password: 'ann'};
  }
  const client = new Etcd3(options);
  await client.put('a/x').value('1');
  expect('get', await client.get('a/x').string(), '1');

  const watcher = await client.watch().prefix('a/w').create();
  const heard = new Promise(resolve => watcher.on('put', kv => resolve(kv.value.toString())));
  await client.put('a/w1').value('2');
  expect('watch', await heard, '2');
  await watcher.cancel();

  const lease = client.lease(30);
  await lease.put('a/leased').value('z');
  expect('leased', await client.get('a/leased').string(), 'z');
  await lease.revoke();
  expect('revoked', await client.get('a/leased').string(), null);

  const done = await client.if('a/x', 'Value', '==', '1').then(client.put('a/x').value('3')).commit();
  expect('transaction', done.succeeded, true);
  expect('its put', await client.get('a/x').string(), '3');

  const lock = client.lock('a/lock');
  await lock.acquire();
  await lock.release();

  const space = client.namespace('a/');  // the package puts elections below "election/"
  const election = space.election('e', 10);
  const campaign = election.campaign('me');
  await new Promise((resolve, reject) => campaign.on('elected', resolve).on('error', reject));
  expect('leader', await election.leader(), 'me');
  await campaign.resign();

  if (ca) {
    const refusal = await client.put('secret').value('x').then(() => null, error => error);
    expect('a put that is denied', refusal instanceof EtcdPermissionDeniedError, true);
  }
  client.close();
  console.log('ok');
}

main(...process.argv.slice(2)).catch(error => {
  console.error(error);
  process.exit(1);
});
