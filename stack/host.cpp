#include "stack/host.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>

#include "stack/tcp/protocol.h"
#include "stack/udp/protocol.h"

namespace ustack {

namespace {

/// A shard has its part of what the host may have in all.
Settings share(const HostConfig& config) {
  Settings settings = config.settings;
  if (config.shards == nullptr) return settings;
  const auto shards = static_cast<int32_t>(config.shards->count());
  for (int32_t& pages : settings.tcp_mem) pages = std::max(pages / shards, 1);
  for (int32_t* limit : {&settings.tcp_max_tw_buckets, &settings.tcp_max_orphans, &settings.tcp_awake,
                         &settings.tcp_challenge_ack_limit, &settings.tcp_reset_limit})
    *limit = *limit / shards + (*limit % shards != 0 ? 1 : 0);
  return settings;
}

}  // namespace

Host* Host::create(Arena& arena, RandomSource& random, const HostConfig& config, Instant now) {
  Host* host = arena.create<Host>(arena, random, config, now);
  if (host == nullptr) return nullptr;
  const HostContext context = host->context(random);
  if (config.shards != nullptr) config.shards->hosts[config.shard] = host;
  host->tcp_ = arena.create<tcp::Protocol>(*host, context, host->network_);
  host->udp_ = arena.create<udp::Protocol>(*host, context, host->network_);
  if (host->tcp_ == nullptr || host->udp_ == nullptr) {
    destroy(host);
    return nullptr;
  }
  return host;
}

void Host::destroy(Host* host) {
  if (host == nullptr) return;
  Arena& arena = host->arena_;
  if (host->shards_ != nullptr) host->shards_->hosts[host->queue_] = nullptr;
  arena.destroy(host);
}

Host::Host(Arena& arena, RandomSource& random, const HostConfig& config, Instant now)
    : arena_(arena),
      settings_(share(config)),
      log_(config.log),
      now_(now),
      acks_wait_(config.acks_wait),
      queue_(config.shard),
      shards_(config.shards),
      blocks_(arena),
      frames_(arena),
      scheduler_(arena, config.fiber_stack_bytes, config.fiber_stacks_carved),
      timers_(now),
      network_(context(random), config.network, transmit_) {}

/// Of what it is made of, made or not.
HostContext Host::context(RandomSource& random) {
  return {arena_,    blocks_, frames_, scheduler_, timers_, random, counters_,
          settings_, log_,    now_,    queue_,     shards_, queue_};
}

Host::~Host() {
  arena_.destroy(udp_);
  arena_.destroy(tcp_);
  while (TxFrame* frame = transmit_.pop_front()) frames_.release(frame);
}

void Host::receive(RxFrame&& frame, Instant now) {
  now_ = std::max(now_, now);
  network_.receive(std::move(frame));
}

bool Host::hand_over(Shards& shards) {
  bool found = false;
  if (shards.count() == 1) return found;
  for (uint32_t i = 0; i < shards.count(); ++i) {
    while (std::optional<Stray> stray = shards.hosts[i]->network_.take_stray()) {
      found = true;
      for (uint32_t to = 0; to < shards.count(); ++to)
        if (to != i && (stray->shard == to || stray->shard == Steering::kAnyShard))
          shards.hosts[to]->network_.receive_stray(*stray);
    }
  }
  return found;
}

void Host::run(Instant now) {
  now_ = std::max(now_, now);
  timers_.advance(now_);
  // What turns round inside the host makes tasks ready again.
  do counters_.UstackFiberRuns += scheduler_.run();
  while (network_.deliver_local());
}

Instant Host::next_deadline() const {
  Instant next = timers_.next_deadline();
  // Whoever lacked memory for a stack has no other event to wait for.
  return scheduler_.starved() ? std::min(next, now_ + kStarvedRetry) : next;
}

Result<Socket*> Host::open_socket(int domain, int type, int protocol) {
  if (domain != AF_INET && domain != AF_INET6) return Error{EAFNOSUPPORT};
  const Family family = domain == AF_INET ? Family::ipv4 : Family::ipv6;
  if (type == SOCK_DGRAM) {
    if (protocol != IPPROTO_IP && protocol != IPPROTO_UDP) return Error{EPROTONOSUPPORT};
    return udp_->open_socket(family);
  }
  if (type != SOCK_STREAM) return Error{ESOCKTNOSUPPORT};
  if (protocol != IPPROTO_IP && protocol != IPPROTO_TCP) return Error{EPROTONOSUPPORT};
  return tcp_->open_socket(family);
}

void Host::send_owed_acks() { tcp_->send_owed_acks(); }

void Host::take_census(SeeOutside outside) {
  Census census;
  frames_.begin_census();
  blocks_.begin_census();
  tcp_->begin_census();
  udp_->begin_census();
  census.see(transmit_);
  network_.show(census);
  tcp_->show(census);
  udp_->show(census);
  if (outside != nullptr) outside(census);
}

uint64_t Host::unaccounted(SeeOutside outside) {
  take_census(outside);
  return frames_.miscounted() + blocks_.miscounted() + tcp_->unseen() + udp_->unseen();
}

void Host::mend(SeeOutside outside) {
  arena_.mend();
  // First of all: the counts are right from here on, so that what is ended below gives back what it has.
  take_census(outside);
  tcp_->end_census();
  udp_->end_census();
  counters_.UstackMemoryRecovered += frames_.end_census() + blocks_.end_census();
  scheduler_.mend();
  timers_.mend();
  network_.mend();
  tcp_->mend();
  udp_->mend();
}

void Host::release_lost() {
  tcp_->release_lost();
  udp_->release_lost();
}

bool Host::drained() { return tcp_->drained() && transmit_.empty() && !network_.neighbours().has_waiting(); }

}  // namespace ustack
