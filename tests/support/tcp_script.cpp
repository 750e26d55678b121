#include "tests/support/tcp_script.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cctype>
#include <charconv>
#include <cstdlib>
#include <utility>

namespace ustack::test {

/// What is left of a line, word by word.
struct TcpScript::Words {
  std::string_view rest;
  std::string_view next() {
    while (!rest.empty() && std::isspace(static_cast<unsigned char>(rest.front())) != 0)
      rest.remove_prefix(1);
    size_t length = 0;
    while (length < rest.size() && std::isspace(static_cast<unsigned char>(rest[length])) == 0) ++length;
    std::string_view word = rest.substr(0, length);
    rest.remove_prefix(length);
    return word;
  }
  bool number_follows() const {
    size_t at = rest.find_first_not_of(" \t");
    return at != std::string_view::npos && std::isdigit(static_cast<unsigned char>(rest[at])) != 0;
  }
};

namespace {

uint32_t number(std::string_view text) {
  return static_cast<uint32_t>(std::strtoul(std::string(text).c_str(), nullptr, 10));
}

/// "3-5" or "3", or in bytes "3500b-4000b", as a range of bytes of the stream.
std::pair<uint32_t, uint32_t> range(std::string_view text) {
  size_t dash = text.find('-');
  std::string_view first = text.substr(0, dash);
  std::string_view last = dash == std::string_view::npos ? first : text.substr(dash + 1);
  if (first.back() == 'b') return {number(first), number(last)};
  return {number(first) * TcpScript::kMss, (number(last) + 1) * TcpScript::kMss};
}

}  // namespace

TcpScript::TcpScript(const ScriptOptions& options) : options_(options) {
  TcpPeer::Options peer;
  peer.settings = options.settings;
  if (options.ecn) peer.settings.tcp_ecn = 1;
  if (options.superframes) peer.link = superframe_link();
  peer_ = std::make_unique<TcpPeer>(peer);
  socket_ = peer_->connect();
  std::string name(options.congestion);
  EXPECT_TRUE(socket_->set_option(IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(name))).ok());
  auto syn = peer_->take();
  if (!syn.empty() && syn[0].tcp && syn[0].tcp->timestamps) last_timestamp_ = syn[0].tcp->timestamps->first;
  peer_->advance(options.rtt);
  // Timestamps take 12 bytes of each segment.
  ByteVector syn_options = mss_option(static_cast<uint16_t>(kMss + (options.timestamps ? 12 : 0)));
  auto add = [&](const ByteVector& more) { syn_options.insert(syn_options.end(), more.begin(), more.end()); };
  if (options.sack) add(sack_permitted_option());
  if (options.timestamps) add(timestamps_option(1000, last_timestamp_));
  peer_next_ = peer_->peer_iss + 1;
  peer_->send({.seq = peer_->peer_iss,
               .ack = peer_->iss + 1,
               .flags = options.ecn ? "SAE" : "SA",
               .window = static_cast<uint16_t>(options.window * kMss),
               .options = syn_options});
  peer_->take();
  start_ = peer_->iss + 1;
  begin_ = peer_->now();
  timestamp_at_start_ = last_timestamp_ + static_cast<uint32_t>(to_ms(options.rtt));
}

TcpScript::~TcpScript() { socket_.close(); }

void TcpScript::fail(const std::string& what) {
  auto at = static_cast<double>(to_us(peer_->now() - begin_)) / 1000;
  ADD_FAILURE() << "line " << line_number_ << " at " << at << " ms: " << line_ << "\n  " << what << "\n  "
                << [&] {
                     LogLine log;
                     log << TcpPeer::endpoint(socket_).tcb().snd;
                     return std::string(log.text());
                   }();
}

void TcpScript::run(std::string_view script) {
  line_number_ = 0;
  while (!script.empty()) {
    size_t end = script.find('\n');
    line_ = script.substr(0, end);
    script.remove_prefix(end == std::string_view::npos ? script.size() : end + 1);
    ++line_number_;
    execute(line_.substr(0, line_.find('#')));
  }
}

void TcpScript::execute(std::string_view line) {
  Words words{line};
  std::string_view word = words.next();
  if (word.empty()) return;
  if (word.front() == '+') {
    double ms = std::strtod(std::string(word.substr(1)).c_str(), nullptr);
    peer_->advance(Duration(static_cast<int64_t>(ms * 1e6)));
    word = words.next();
  }
  if (word == "write")
    write(words);
  else if (word == ">")
    expect_sent(words);
  else if (word == "<")
    acknowledge(words);
  else if (word == "?")
    expect(words);
  else if (word == "close")
    EXPECT_TRUE(socket_->shutdown(ShutdownHow::write).ok()), peer_->run();
  else if (word == "nodelay")
    EXPECT_TRUE(socket_.set(IPPROTO_TCP, TCP_NODELAY, 1).ok()), peer_->run();
  else
    fail("not a line of this language");
}

void TcpScript::write(Words& words) {
  std::string_view amount = words.next();
  uint32_t bytes = number(amount) * (amount.back() == 'b' ? 1 : kMss);
  int64_t written = socket_.send(std::string(bytes, 'd'));
  if (written != static_cast<int64_t>(bytes)) fail("only " + std::to_string(written) + " bytes were taken");
  peer_->run();
}

std::string TcpScript::segments(uint32_t bytes) const {
  if (bytes % kMss == 0) return std::to_string(bytes / kMss);
  return std::to_string(bytes) + "b";
}

/// What was sent, in the words of a script; pure ACKs are left out.
std::string TcpScript::sent() {
  struct Run {
    uint32_t first, last;
  };
  std::string text;
  std::optional<Run> run;
  auto flush = [&] {
    if (!run) return;
    text += (text.empty() ? "" : " ") + std::to_string(run->first);
    if (run->last > run->first) text += "-" + std::to_string(run->last);
    run.reset();
  };
  for (const CapturedFrame& frame : peer_->take()) {
    if (!frame.tcp) continue;
    if (frame.tcp->timestamps) last_timestamp_ = frame.tcp->timestamps->first;
    bool fin = (frame.tcp->flags & 1) != 0, reset = (frame.tcp->flags & 4) != 0;
    bool reduced = (frame.tcp->flags & 0x80) != 0;
    auto size = static_cast<uint32_t>(frame.payload.size());
    if (size == 0 && !fin && !reset) continue;
    uint32_t at = frame.tcp->seq - start_;
    if (!fin && !reset && !reduced && at % kMss == 0 && size % kMss == 0) {
      if (run && run->last + 1 == at / kMss) {
        run->last += size / kMss;
      } else {
        flush();
        run = Run{at / kMss, at / kMss + size / kMss - 1};
      }
      continue;
    }
    flush();
    text += (text.empty() ? "" : " ") + segments(at);
    if (reduced && size == kMss) text += "W";
    if (size % kMss != 0 || size == 0) text += "+" + std::to_string(size);
    if (fin) text += "F";
    if (reset) text += "R";
  }
  flush();
  return text;
}

void TcpScript::expect_sent(Words& words) {
  std::string wanted;
  for (std::string_view word = words.next(); !word.empty(); word = words.next())
    wanted += (wanted.empty() ? "" : " ") + std::string(word);
  std::string got = sent();
  if (got != wanted) fail("sent: " + (got.empty() ? std::string("nothing") : got));
}

void TcpScript::acknowledge(Words& words) {
  std::string_view upto = words.next();
  PeerSegment segment{.seq = peer_next_,
                      .ack = start_ + number(upto) * (upto.back() == 'b' ? 1 : kMss),
                      .window = static_cast<uint16_t>(options_.window * kMss)};
  // The timestamp to be echoed is that of what was sent last, seen or not.
  for (const CapturedFrame& frame : peer_->sent())
    if (frame.tcp && frame.tcp->timestamps) last_timestamp_ = frame.tcp->timestamps->first;
  uint32_t echo = last_timestamp_;
  std::vector<std::pair<uint32_t, uint32_t>> blocks;
  auto add_block = [&](std::string_view text) {
    auto [from, to] = range(text);
    blocks.emplace_back(start_ + from, start_ + to);
  };
  for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
    if (word == "sack")
      while (words.number_follows()) add_block(words.next());
    else if (word == "dsack")
      add_block(words.next());
    else if (word == "win")
      segment.window = static_cast<uint16_t>(number(words.next()) * kMss);
    else if (word == "ecr")
      echo = timestamp_at_start_ + number(words.next());
    else if (word == "ece")
      segment.flags = "AE";
    else if (word == "data")
      segment.payload = std::string(number(words.next()), 'p');
    else
      fail("unknown: " + std::string(word));
  }
  if (options_.timestamps) {
    auto ms = static_cast<uint32_t>(to_ms(peer_->now() - begin_));
    segment.options = timestamps_option(2000 + ms, echo);
  }
  if (!blocks.empty()) {
    ByteVector sacks = sack_option(blocks);
    segment.options.insert(segment.options.end(), sacks.begin(), sacks.end());
  }
  peer_next_ += static_cast<uint32_t>(segment.payload.size());
  peer_->send(segment);
}

void TcpScript::expect(Words& words) {
  std::string_view name = words.next();
  std::string wanted(words.next());
  const tcp::Sender& snd = TcpPeer::endpoint(socket_).tcb().snd;
  std::string got;
  if (name == "state") {
    got = tcp::name_of(snd.congestion_state());
  } else if (name == "cwnd") {
    got = segments(snd.cwnd());
  } else if (name == "ssthresh") {
    got = snd.congestion->in_slow_start() && snd.congestion->ssthresh() > (1U << 30)
              ? "infinite"
              : segments(snd.congestion->ssthresh());
  } else if (name == "in_flight") {
    got = segments(snd.in_flight());
  } else if (name == "lost") {
    got = segments(snd.flight().lost());
  } else if (name == "sacked") {
    got = segments(snd.flight().sacked());
  } else if (name == "reordering") {
    got = std::to_string(snd.recovery().reordering());
  } else if (name == "rto") {
    got = std::to_string(to_ms(snd.rtt.rto()));
  } else {
    for (const CounterDescription& row : kCounterTable)
      if (row.group == "TcpExt" && row.name == name) got = std::to_string(peer_->counters().*row.field);
    if (got.empty()) got = "no such thing";
  }
  if (got != wanted) fail(std::string(name) + " is " + got);
}

}  // namespace ustack::test
