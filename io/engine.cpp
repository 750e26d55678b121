#include "io/engine.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "io/fork_mark.h"
#include "io/plain_engine.h"
#include "io/syscalls.h"
#include "io/uring_engine.h"

namespace ustack::io {

namespace {

/// Engines are mapped, not allocated: they are made in the middle of a program's call, where its allocator
/// might be in any state.
constexpr size_t kEngineBytes = (std::max(sizeof(PlainEngine), sizeof(UringEngine)) + 4095) / 4096 * 4096;

}  // namespace

Engine::Engine() : generation_(fork_generation()) {}

bool Engine::stale() const { return generation_ != fork_generation(); }

Engine* Engine::create(EngineKind kind, Link& link, Host& host, Duration spin, Holdings* holdings,
                       uint32_t queue) {
  long mapped = sys::mmap(nullptr, kEngineBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (sys::failed(mapped)) return nullptr;
  void* memory = reinterpret_cast<void*>(mapped);
  if (kind != EngineKind::plain) {
    auto* ring = new (memory) UringEngine(link, host, spin, kind == EngineKind::uring, queue);
    Engine* engine = ring;
    engine->holdings_ = holdings;
    if (kind == EngineKind::automatic || ring->start() >= 0) return engine;
    engine->tear_down(true);
  }
  Engine* engine = new (memory) PlainEngine(link, host, spin);
  engine->holdings_ = holdings;
  return engine;
}

void Engine::destroy(Engine* engine) {
  if (engine == nullptr) return;
  if (engine->holdings_ != nullptr) engine->holdings_->clear();
  engine->tear_down(true);
  sys::munmap(engine, kEngineBytes);
}

void Engine::abandon(Engine* engine) {
  if (engine == nullptr) return;
  engine->tear_down(false);
  sys::munmap(engine, kEngineBytes);
}

const char* engine_kind_name(EngineKind kind) {
  switch (kind) {
    case EngineKind::automatic:
      return "automatic";
    case EngineKind::plain:
      return "plain";
    case EngineKind::uring:
      return "uring";
  }
  return "?";
}

}  // namespace ustack::io
