#include "conclave/server/tls/stream.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/server/tls/material.h"

namespace conclave::tls {
namespace {

// More than this is not kept for the next burst.
constexpr size_t kKeptCapacityBytes = 64 * 1024;

std::string Reason(unsigned long code) {  // NOLINT(google-runtime-int): OpenSSL's
  const char* text = ERR_reason_error_string(code);
  return text == nullptr ? "handshake failed" : text;
}

}  // namespace

const void* Stream::BioMethod() {
  static const BIO_METHOD* const kMethod = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conclave");
    CONCLAVE_CHECK(method != nullptr, "out of memory");
    BIO_meth_set_write(method, BioWrite);
    BIO_meth_set_read(method, BioRead);
    BIO_meth_set_ctrl(method, BioControl);
    return method;
  }();
  return kMethod;
}

Stream::Stream(std::shared_ptr<const Material> material, SSL_CTX* context, int fd, bool accepting,
               Speaks speaks)
    : material_(std::move(material)), fd_(fd), accepting_(accepting), speaks_(speaks) {
  ssl_ = SSL_new(context);
  BIO* bio = BIO_new(static_cast<const BIO_METHOD*>(BioMethod()));
  CONCLAVE_CHECK(ssl_ != nullptr && bio != nullptr, "out of memory");
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, reinterpret_cast<void*>(static_cast<uintptr_t>(speaks_)));
  accepting_ ? SSL_set_accept_state(ssl_) : SSL_set_connect_state(ssl_);
}

Stream::~Stream() { SSL_free(ssl_); }

int Stream::BioWrite(BIO* bio, const char* data, int size) {
  auto* self = static_cast<Stream*>(BIO_get_data(bio));
  self->unsent_.append(data, static_cast<size_t>(size));
  return size;
}

int Stream::BioRead(BIO* bio, char* data, int size) {
  auto* self = static_cast<Stream*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (self->drained_) {
    BIO_set_retry_read(bio);
    return -1;
  }
  ssize_t count = 0;
  do {
    count = recv(self->fd_, data, static_cast<size_t>(size), 0);
  } while (count < 0 && errno == EINTR);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) BIO_set_retry_read(bio);
  // The socket will tell when it has more; asking it now would cost a call that gives nothing.
  self->drained_ = count > 0 && count < size;
  return static_cast<int>(count);
}

long Stream::BioControl(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {  // NOLINT
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

Stream::Step Stream::Handshake() {
  if (done_) return Step::kDone;
  if (broken_) return Step::kFailed;
  drained_ = false;
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  const int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_, result);
  if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ) {
    Fail(error);
    Flush();  // the alert, as far as the other side listens
    return Step::kFailed;
  }
  const Flushed flushed = Flush();
  if (flushed == Flushed::kBroken) {
    error_ = std::strerror(errno);
    broken_ = true;
    return Step::kFailed;
  }
  if (error == SSL_ERROR_NONE) {
    OnHandshakeDone();
    return Step::kDone;
  }
  return flushed == Flushed::kBlocked ? Step::kWantWrite : Step::kWantRead;
}

void Stream::Fail(int ssl_error) {
  broken_ = true;
  const long verdict = SSL_get_verify_result(ssl_);  // NOLINT(google-runtime-int): OpenSSL's
  const unsigned long code = ERR_peek_last_error();  // NOLINT(google-runtime-int)
  if (verdict == X509_V_ERR_APPLICATION_VERIFICATION) {
    error_ = "client certificate authentication failed";
  } else if (verdict != X509_V_OK) {
    error_ =
        absl::StrCat("tls: failed to verify certificate: ", X509_verify_cert_error_string(verdict));
  } else if (code != 0 && ERR_GET_REASON(code) != SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    error_ = absl::StrCat("tls: ", Reason(code));
  } else {
    error_ = ssl_error == SSL_ERROR_SYSCALL && errno != 0 ? std::strerror(errno) : "EOF";
  }
  ERR_clear_error();
}

void Stream::OnHandshakeDone() {
  done_ = true;
  if (!accepting_ || !material_->options().client_cert_auth) return;
  X509* certificate = SSL_get0_peer_certificate(ssl_);
  if (certificate != nullptr) certificate_name_ = CommonName(certificate);
}

CertificateAddresses Stream::addresses() const {
  CertificateAddresses addresses;
  X509* const certificate = SSL_get0_peer_certificate(ssl_);
  if (certificate == nullptr) return addresses;
  auto* const names = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    int type = 0;
    const auto* text = static_cast<const ASN1_STRING*>(
        GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type));
    if (type != GEN_IPADD && type != GEN_DNS) continue;
    auto& into = type == GEN_IPADD ? addresses.ips : addresses.names;
    into.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                      static_cast<size_t>(ASN1_STRING_length(text)));
  }
  GENERAL_NAMES_free(names);
  return addresses;
}

ssize_t Stream::Read(void* buffer, size_t size) {
  drained_ = false;
  return Take(buffer, size);
}

ssize_t Stream::ReadBuffered(void* buffer, size_t size) {
  drained_ = true;
  return Take(buffer, size);
}

ssize_t Stream::Take(void* buffer, size_t size) {
  size_t have = 0;
  while (have < size) {
    ERR_clear_error();
    const size_t room = std::min(size - have, static_cast<size_t>(INT_MAX));
    const int got = SSL_read(ssl_, static_cast<char*>(buffer) + have, static_cast<int>(room));
    if (got > 0) {
      have += static_cast<size_t>(got);
      continue;
    }
    if (have > 0) break;  // an end or an error comes again with the next call
    switch (SSL_get_error(ssl_, got)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
      case SSL_ERROR_ZERO_RETURN:
        return 0;
      default:
        broken_ = true;
        errno = EPROTO;
        return -1;
    }
  }
  return static_cast<ssize_t>(have);
}

bool Stream::HasBuffered() const { return SSL_has_pending(ssl_) == 1; }

ssize_t Stream::Write(std::string_view plain) {
  if (broken_) return -1;
  const size_t room = kUnsentBytesMax - std::min(kUnsentBytesMax, unsent());
  const size_t count = std::min(plain.size(), room);
  if (count == 0) return 0;
  ERR_clear_error();
  // Gathering takes everything, so this either takes all or is broken.
  if (SSL_write(ssl_, plain.data(), static_cast<int>(count)) != static_cast<int>(count)) {
    broken_ = true;
    return -1;
  }
  return static_cast<ssize_t>(count);
}

Stream::Flushed Stream::Flush() {
  while (sent_ < unsent_.size()) {
    const ssize_t count = send(fd_, unsent_.data() + sent_, unsent_.size() - sent_, MSG_NOSIGNAL);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return Flushed::kBroken;
      if (sent_ >= kUnsentBytesMax / 2) unsent_.erase(0, std::exchange(sent_, 0));
      return Flushed::kBlocked;
    }
    sent_ += static_cast<size_t>(count);
  }
  sent_ = 0;
  if (unsent_.capacity() > kKeptCapacityBytes) {
    std::string().swap(unsent_);
  } else {
    unsent_.clear();
  }
  return Flushed::kAll;
}

void Stream::Shutdown() {
  if (!done_ || broken_) return;
  ERR_clear_error();
  SSL_shutdown(ssl_);
  if (Flush() == Flushed::kBroken) broken_ = true;
}

std::string_view Stream::protocol() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_, &name, &size);
  return {reinterpret_cast<const char*>(name), size};
}

std::string Stream::server_name() const {
  const char* name = SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name);
  return name == nullptr ? std::string() : std::string(name);
}

uint64_t Stream::material_number() const { return material_->number(); }

}  // namespace conclave::tls
