// Stream: TLS over one non-blocking socket, for an event loop.
//
// It is driven like the socket itself: Handshake until it is done, then Read and Write with the
// contracts of recv and send. Records are read in as large pieces as the socket has, and what is
// written is gathered, so that a burst of small messages is one record and one system call, and a
// large one as many records as it needs but few system calls. Cost of a byte beyond the cipher: one
// copy out (cipher text into the gathering buffer), and none in.
//
// Thread: one at a time. It may move to another one after the handshake. Limits: kUnsentBytesMax of
// cipher text wait for the socket; above it Write takes nothing. The memory for reading is given
// back whenever there is nothing half read.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "conclave/server/tls/address_check.h"
#include "conclave/server/tls/policy.h"

struct ssl_st;
struct bio_st;
struct ssl_ctx_st;

namespace conclave::tls {

inline constexpr size_t kUnsentBytesMax = 256 * 1024;

class Stream {
 public:
  enum class Step : uint8_t { kDone, kWantRead, kWantWrite, kFailed };

  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Goes on as far as the socket allows. After kFailed error() says why, and the other side has
  // been told as far as it listens.
  Step Handshake();
  const std::string& error() const { return error_; }

  // As recv: how many bytes came, 0 at the end, -1 with errno (EAGAIN: the socket has no more;
  // EPROTO: these are no records of this connection). Fills the buffer as far as it can.
  ssize_t Read(void* buffer, size_t size);
  // The same without asking the socket for more: what is left of the last record, and whole ones
  // behind it.
  ssize_t ReadBuffered(void* buffer, size_t size);
  // Bytes wait in here that the socket's readiness does not tell of.
  bool HasBuffered() const;

  // Takes as much as it has room for, and says how much; -1: the connection is broken.
  ssize_t Write(std::string_view plain);
  enum class Flushed : uint8_t { kAll, kBlocked, kBroken };
  Flushed Flush();
  size_t unsent() const { return unsent_.size() - sent_; }

  // Says goodbye, as far as the socket takes it at once.
  void Shutdown();

  // ---- After the handshake.
  // The protocol that was agreed on: "h2", "http/1.1", or empty.
  std::string_view protocol() const;
  // Common name of the client's verified certificate; empty if there is none, or if certificates do
  // not name users on this port.
  const std::string& certificate_name() const { return certificate_name_; }
  // Whom the other side's certificate is made for; nothing without one.
  CertificateAddresses addresses() const;
  // For log lines: whom the client wanted to speak to.
  std::string server_name() const;
  uint64_t material_number() const;

 private:
  friend class Policy;
  Stream(std::shared_ptr<const Material> material, ssl_ctx_st* context, int fd, bool accepting,
         Speaks speaks);

  static int BioWrite(bio_st* bio, const char* data, int size);
  static int BioRead(bio_st* bio, char* data, int size);
  static long BioControl(bio_st* bio, int command, long number, void* pointer);  // NOLINT
  static const void* BioMethod();
  ssize_t Take(void* buffer, size_t size);
  void Fail(int ssl_error);
  void OnHandshakeDone();

  const std::shared_ptr<const Material> material_;
  ssl_st* ssl_ = nullptr;
  const int fd_;
  const bool accepting_;
  const Speaks speaks_;
  bool done_ = false;
  bool broken_ = false;
  bool drained_ = false;  // the socket gave less than it was asked for
  std::string unsent_;    // cipher text
  size_t sent_ = 0;       // of unsent_
  std::string error_;
  std::string certificate_name_;
};

}  // namespace conclave::tls
