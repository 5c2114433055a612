// A phone of JsSIP over a WebSocket. Its signalling is JsSIP's; its media is a description and nothing behind it.
// Arguments: URL of the WebSocket, SIP URI, password. Commands: one JSON object a line. Events: the same.
const readline = require('readline');

globalThis.window = globalThis;
globalThis.WebSocket = require('ws');

const DESCRIPTION = direction =>
  `v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\na=${direction}\r\n`;

globalThis.RTCPeerConnection = class {
  constructor() {
    this.iceGatheringState = 'complete';
    this.iceConnectionState = 'connected';
    this.signalingState = 'stable';
    this.direction = 'sendrecv';
  }
  addEventListener() {}
  removeEventListener() {}
  addTrack() {}
  getSenders() { return []; }
  async createOffer() { return { type: 'offer', sdp: DESCRIPTION(this.direction) }; }
  async createAnswer() { return { type: 'answer', sdp: DESCRIPTION(this.direction) }; }
  async setLocalDescription(description) { this.localDescription = description; }
  async setRemoteDescription(description) { this.remoteDescription = description; }
  close() { this.signalingState = 'closed'; }
};
globalThis.RTCSessionDescription = class {
  constructor(init) { Object.assign(this, init); }
};

const JsSIP = require('jssip');
const tell = event => process.stdout.write(JSON.stringify(event) + '\n');
const [url, uri, password] = process.argv.slice(2);
const ua = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(url)], uri, password, session_timers: false, register_expires: 120,
});
let session;

const follow = started => {
  session = started;
  session.on('progress', () => tell({ event: 'progress' }));
  session.on('confirmed', () => tell({ event: 'confirmed' }));
  session.on('hold', e => tell({ event: 'hold', by: e.originator }));
  session.on('unhold', e => tell({ event: 'unhold', by: e.originator }));
  session.on('refer', e => e.accept(undefined, { mediaStream: { getTracks: () => [] } }));
  session.on('ended', e => tell({ event: 'ended', by: e.originator, cause: e.cause }));
  session.on('failed', e => tell({ event: 'failed', by: e.originator, cause: e.cause, status: e.message && e.message.status_code }));
};

ua.on('registered', () => tell({ event: 'registered' }));
ua.on('unregistered', () => tell({ event: 'unregistered' }));
ua.on('registrationFailed', e => tell({ event: 'registrationFailed', status: e.response && e.response.status_code }));
ua.on('newMessage', e => {
  if (e.originator === 'remote') tell({ event: 'message', from: e.request.from.uri.user, text: e.request.body });
});
ua.on('newRTCSession', e => {
  follow(e.session);
  if (e.originator === 'remote') tell({ event: 'invite', from: e.request.from.uri.user });
});

readline.createInterface({ input: process.stdin }).on('line', line => {
  const { command, target, text, status } = JSON.parse(line);
  const options = { mediaStream: { getTracks: () => [] } };
  switch (command) {
    case 'message':
      ua.sendMessage(target, text, { eventHandlers: {
        succeeded: () => tell({ event: 'sent' }),
        failed: e => tell({ event: 'notSent', status: e.response && e.response.status_code }),
      } });
      break;
    case 'call': ua.call(target, options); break;
    case 'answer': session.answer(options); break;
    case 'refuse': session.terminate({ status_code: status }); break;
    case 'hold': session.hold(); break;
    case 'unhold': session.unhold(); break;
    case 'transfer': session.refer(target, { eventHandlers: { accepted: () => session.terminate() } }); break;
    case 'hangup': session.terminate(); break;
    case 'stop': ua.stop(); break;
  }
});

ua.start();
