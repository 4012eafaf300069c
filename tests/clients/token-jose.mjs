// npm `jose`: prints tokens as a backend in JavaScript makes them, one in each line: a name, a space, the token.

import { SignJWT, UnsecuredJWT, exportSPKI, generateKeyPair } from 'jose';

const key = new TextEncoder().encode(process.argv[2]);
const topics = { subscribe: ['user/42'], publish: ['in/*'] };
const jwt = (claims, alg = 'HS256') => new SignJWT(claims).setProtectedHeader({ alg }).setSubject('42').setExpirationTime('10m');
const show = (name, token) => console.log(name, token);

show('right', await jwt(topics).sign(key));
show('right-issued', await jwt(topics).setIssuedAt().setNotBefore('0s').setIssuer('https://app.example.org').setJti('7').sign(key));
show('right-mercure', await jwt({ mercure: topics }).sign(key));
show('wrong-none', new UnsecuredJWT(topics).setExpirationTime('10m').encode());
for (const alg of ['RS256', 'ES256', 'PS256', 'EdDSA']) {
  const pair = await generateKeyPair(alg, { extractable: true });
  show(`wrong-${alg}`, await jwt(topics, alg).sign(pair.privateKey));
  // The confusion of algorithms: a public key as the secret of HS256.
  const secret = new TextEncoder().encode(await exportSPKI(pair.publicKey));
  show(`wrong-HS256-by-${alg}`, await jwt(topics).sign(secret));
}
show('wrong-later', await jwt(topics).setNotBefore('5m').sign(key));
