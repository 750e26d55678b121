#include "io/fork_mark.h"

#include <sys/mman.h>

#include <atomic>

#include "io/syscalls.h"

namespace ustack::io {

namespace {

/// One page that a child finds zeroed; its first word is this process's generation.
std::atomic<std::atomic<uint64_t>*> mark_page{nullptr};
/// Inherited by children, so that theirs is larger.
std::atomic<uint64_t> last_generation{0};

std::atomic<uint64_t>* make_page() {
  long mapped = sys::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (sys::failed(mapped)) return nullptr;
  auto* page = reinterpret_cast<std::atomic<uint64_t>*>(mapped);
  sys::madvise(page, 4096, MADV_WIPEONFORK);
  std::atomic<uint64_t>* none = nullptr;
  if (mark_page.compare_exchange_strong(none, page)) return page;
  sys::munmap(page, 4096);  // another thread was first
  return none;
}

}  // namespace

uint64_t fork_generation() {
  std::atomic<uint64_t>* page = mark_page.load(std::memory_order_acquire);
  if (page == nullptr) page = make_page();
  // Without memory for a page the process can't start a host either; the answer only must not be 0.
  if (page == nullptr) return 1;
  uint64_t generation = page->load(std::memory_order_relaxed);
  if (generation != 0) [[likely]]
    return generation;
  uint64_t fresh = last_generation.fetch_add(1) + 1;
  uint64_t zero = 0;
  return page->compare_exchange_strong(zero, fresh) ? fresh : zero;
}

const void* fork_mark_page() { return mark_page.load(std::memory_order_acquire); }

}  // namespace ustack::io
