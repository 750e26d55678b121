#include "io/shared_region.h"

#include <sys/mman.h>

#include <cerrno>
#include <new>

#include "io/syscalls.h"

namespace ustack::io {

namespace {

constexpr size_t kPage = 4096;
constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, Linux 5.14; older headers lack it

constexpr size_t page_round_up(size_t n) { return (n + kPage - 1) / kPage * kPage; }

/// For kernels without MADV_POPULATE_WRITE: fault the pages in one by one, keeping what they hold. There a
/// machine without memory answers by SIGBUS, which is why this is not the first choice.
void touch(std::byte* at, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kPage) {
    auto* byte = reinterpret_cast<unsigned char*>(at + i);
    __atomic_fetch_or(byte, 0, __ATOMIC_RELAXED);
  }
}

bool commit_pages(void* memory, size_t bytes) {
  for (;;) {
    long result = sys::madvise(memory, bytes, kPopulateWrite);
    if (result == 0) return true;
    if (result == -EINTR || result == -EAGAIN) continue;
    if (result != -EINVAL) return false;
    touch(static_cast<std::byte*>(memory), bytes);
    return true;
  }
}

}  // namespace

std::optional<OpenError> SharedRegion::reserve(SharedRegion** region, size_t bytes) {
  *region = nullptr;
  bytes = page_round_up(bytes);
  for (;; bytes = page_round_up(bytes / 2)) {
    long mapped =
        sys::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE);
    if (!sys::failed(mapped)) {
      auto* mapping = reinterpret_cast<std::byte*>(mapped);
      if (!commit_pages(mapping, kPage)) {
        sys::munmap(mapping, bytes);
        return OpenError{ENOMEM,
                         "no memory for the host's arena: the machine or the container has no page left"};
      }
      sys::madvise(mapping, bytes, MADV_DONTDUMP);
      *region = new (mapping) SharedRegion(mapping, bytes);
      return std::nullopt;
    }
    if (bytes / 2 < kSmallestBytes) {
      return OpenError{static_cast<int>(-mapped),
                       "can't reserve address space for the host's arena, not even 256 MiB: raise the limit "
                       "on virtual memory (ulimit -v, RLIMIT_AS) or vm.overcommit_memory=2's commit limit"};
    }
  }
}

void SharedRegion::unmap(SharedRegion* region) {
  if (region == nullptr) return;
  std::byte* mapping = region->mapping_;
  size_t bytes = region->mapping_bytes_;
  sys::munmap(mapping, bytes);
}

SharedRegion::SharedRegion(std::byte* mapping, size_t bytes)
    : mapping_(mapping), mapping_bytes_(bytes), head_bytes_(kPage) {
  static_assert(sizeof(SharedRegion) <= kPage);
}

void* SharedRegion::take_head(size_t bytes) {
  bytes = page_round_up(bytes);
  if (bytes > size()) return nullptr;
  std::byte* memory = base();
  if (!commit_pages(memory, bytes)) return nullptr;
  head_bytes_ += bytes;
  return memory;
}

bool SharedRegion::commit(void* memory, size_t bytes) { return commit_pages(memory, bytes); }

void SharedRegion::release(void* memory, size_t bytes) { sys::madvise(memory, bytes, MADV_REMOVE); }

void SharedRegion::guard(void* memory, size_t bytes) { sys::mprotect(memory, bytes, PROT_NONE); }

void SharedRegion::unguard(void* memory, size_t bytes) {
  sys::mprotect(memory, bytes, PROT_READ | PROT_WRITE);
}

}  // namespace ustack::io
